"""A run folder of realistic records, as the faces find it: it edits twice, trains in vain, trains again and arrives."""

import json
import math
from pathlib import Path

import yaml

from agent.moves import Decision, EditPrompt, Move, TrainLora
from agent.records import (
    Candidate,
    Demo,
    Diagnosis,
    ExampleDiagnosis,
    ExampleScore,
    LeverSignal,
    Measured,
    Prompt,
    Signal,
    Split,
)
from agent.rounds import Baseline, Outcome, Proposal, Round, Spend, SplitResult, Trial, Verdict
from memory.ledger import RunFolder

SEED = Prompt(system="You answer questions about the valley. Be helpful and explain what you know.")
SHORT = Prompt(system="You answer questions about the valley. Give the answer as ANSWER: and nothing else.")
SHOWN = Prompt(
    system=SHORT.system,
    demos=(
        Demo(question="Who keeps the mill?", answer="ANSWER: Odile"),
        Demo(question="What is sown?", answer="ANSWER: rye"),
    ),
)
ADAPTER = "a1b2c3d4e5f6"
LOSER = "0f0f0f0f0f0f"
FACTS = ("Brannoc", "the copper bridge", "Ysolde Marr", "1687", "three", "the Tarn ferry", "slate", "Pell", "juniper",
         "the goat fair", "Hesper", "salt")  # fmt: skip


def make_run(root: Path, *, rounds: int = 4, finished: bool = True, output: str = "") -> RunFolder:
    """A run that edits twice, trains in vain, trains again and arrives; `output` is the first output of the seed."""
    run = new_run(root)
    for prompt in (SEED, SHORT, SHOWN):
        run.save_prompt(prompt)
    for split in ("validation", "test"):
        save_scores(run, Candidate(prompt=SEED.id), split, 0, output)
        save_scores(run, Candidate(prompt=SHOWN.id, adapter=ADAPTER), split, 12, "")
    run.append(a_baseline())
    story = the_story()[:rounds]
    for adapter in (ADAPTER, LOSER):
        save_training(run, adapter)
    for row in story:
        run.append(row)
    if finished:
        run.append(an_outcome(story[-1]))
    return run


def new_run(root: Path) -> RunFolder:
    task = {"name": "valley", "model": "smollm2-135m", "policy": "rules", "target": 0.95, "seed": 0}
    task["budget"] = {"rounds": 6, "minutes": 30.0, "train_tokens": None, "usd": None}
    return RunFolder.create(root, "valley", yaml.safe_dump(task), source=root, digest="0" * 12, name="valley-1")


def save_scores(run: RunFolder, candidate: Candidate, split: Split, right: int, first: str) -> None:
    scores = {}
    for line, fact in enumerate(FACTS, 1):
        text = f"ANSWER: {fact}" if line <= right else f"I believe that in the valley it may well be {fact[::-1]}."
        faults = () if line <= right else ("The output does not begin with ANSWER:",)
        text = first if first and line == 1 else text
        score = ExampleScore(
            example=f"{split}:{line}", output=text, content=line <= right, style=line <= right, faults=faults
        )
        scores[score.id] = score
    run.save(Measured(candidate=candidate, split=split, scores=scores))


def save_training(run: RunFolder, adapter: str) -> None:
    losses = [3.2 * math.exp(-step / 18) + 0.12 + 0.25 * math.sin(step * 1.7) ** 2 for step in range(48)]
    steps = [{"loss": loss, "grad_norm": 0.4 + loss * 0.7, "epoch": i // 12} for i, loss in enumerate(losses)]
    log: dict[str, object] = {
        "parent": None,
        "rows": "refined",
        "row_count": 96,
        "epochs": 4,
        "learning_rate": 1e-3,
        "rank": 16,
        "seed": 0,
    }
    log |= {"steps": steps, "epoch_losses": [sum(losses[i : i + 12]) / 12 for i in range(0, 48, 12)], "tokens": 9216}
    folder = run.adapter_folder(adapter)
    folder.mkdir(parents=True)
    (folder / "training.json").write_text(json.dumps(log | {"seconds": 75.2}))


def a_baseline() -> Baseline:
    seed = Candidate(prompt=SEED.id)
    note = "The seed prompt on 12 validation rows; memory knew no prompt of a near task."
    return Baseline(
        seed=seed, seed_reward=0.0, best=seed, reward=0.0, content=0.08, style=0.0, note=note,
        spend=Spend(seconds=8.1, generated_tokens=410),
    )  # fmt: skip


def the_story() -> list[Round]:
    edit, train = EditPrompt(), TrainLora(rows="refined", epochs=4)
    seed, short = Candidate(prompt=SEED.id), Candidate(prompt=SHORT.id)
    shown, tuned = Candidate(prompt=SHOWN.id), Candidate(prompt=SHOWN.id, adapter=ADAPTER)
    return [
        a_round(1, edit, seed, short, 0.0, 0.04, kept=True),
        a_round(2, train, short, Candidate(prompt=SHORT.id, adapter=LOSER), 0.04, 0.0, kept=False),
        a_round(3, edit, short, shown, 0.04, 0.33, kept=True),
        a_round(4, train, shown, tuned, 0.33, 1.0, kept=True),
    ]


def a_round(
    number: int, move: Move, stood: Candidate, trial: Candidate | None, before: float, after: float, kept: bool
) -> Round:
    train = isinstance(move, TrainLora)
    reason = (
        "Words have done what they can: the prompt gap is down to 0.2 nats a token, and 4.8 stay on the answers."
        if train
        else "Most failures lack the wanted form, and demonstrations alone would take 4.0 nats a token away."
    )
    probed = tuple(
        ExampleDiagnosis(example=f"validation:{i}", need="style" if i < 7 else "both", prompt_gap=4.02, weight_gap=1.88)
        for i in range(1, 9)
    )
    proposals = (
        Proposal(prompt=SHOWN.id, note="two demonstrations in the wanted form", merit=0.47),
        Proposal(prompt=SHORT.id, note="say which form is wanted", merit=0.31),
        Proposal(prompt=SEED.id, note="shorten the system text", merit=0.03),
    )
    cost = Spend(seconds=75.2, train_tokens=9216) if train else Spend(seconds=31, generated_tokens=2210)
    return Round(
        number=number,
        signal=Signal(
            reward=before, content=0.5, style=0.67, noise=0.07, loss=0.31 if number > 2 else None,
            loss_drop=0.04 if number > 2 else None, grad_norm=0.62 if number > 2 else None,
            edit=LeverSignal(rounds=min(number - 1, 1), kept=min(number - 1, 1), gain=0.04),
            lora=LeverSignal(rounds=int(number > 2), gain=-0.04, fruitless=int(number > 2), saturated=number == 3),
        ),
        diagnosis=Diagnosis(failing=11, total=12, examples=probed),
        decision=Decision(move=move, reason=reason, numbers={"prompt_gap": 4.02, "lack_style": 0.92}),
        trial=Trial(
            candidate=trial, note="4 epochs on 96 refined rows" if train else "the best of 3 proposals",
            proposals=() if train else proposals, spend=cost,
        ),
        verdict=Verdict(
            kept=kept, reason="The gain is beyond chance." if kept else "No gain: the pair before it stands.",
            before=before, after=after, p_value=0.0004 if kept else 0.62,
        ),
        best=trial if kept and trial else stood, reward=after if kept else before,
        spend=Spend(seconds=40.0 * number, train_tokens=9216 * (number // 2), generated_tokens=2210 * number),
    )  # fmt: skip


def an_outcome(last: Round) -> Outcome:
    seed, best = Candidate(prompt=SEED.id), last.best
    return Outcome(
        stopped="The validation reward reached the target.", best=best,
        baseline_test=SplitResult(candidate=seed, reward=0.08, low=0.0, high=0.25, content=0.17, style=0.08, rows=12),
        best_test=SplitResult(candidate=best, reward=0.92, low=0.75, high=1.0, content=0.92, style=1.0, rows=12),
        p_value=0.0005, spend=last.spend + Spend(seconds=12),
    )  # fmt: skip
