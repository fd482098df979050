"""The same run with an external LLM: it plans, criticises, rewrites questions and judges; some of it is refused."""

import json
from pathlib import Path

import yaml

from agent.records.actions import Decision, EditPrompt, TrainLora
from agent.records.edits import Critique
from agent.records.examples import Candidate, Demo, Prompt
from agent.records.rounds import Outcome, Proposal, Remaking, Role, Round, Usage
from memory.run.folder import RunFolder
from tests.fixtures.story import (
    ADAPTER,
    LOSER,
    SEED,
    SHORT,
    SHOWN,
    TASK,
    a_baseline,
    a_round,
    an_outcome,
    save_scores,
    save_training,
)

ASKED = Prompt(
    system=SHOWN.system,
    demos=(SHOWN.demos[0], Demo(question="What is sown in the valley?", answer="ANSWER: rye")),
    template="Answer from what you know of the valley.\nQuestion: {question}",
)
PLANNED = "Eleven of twelve rows lack the form, and an edit costs a hundredth of a training."
RULES = "edit_prompt: 92% of the rows lack style."
CRITIQUE = (
    "The system text asks to *explain*, so the answer comes wrapped in a sentence. Say which word must come first."
)
REFUSED = "the training answer 'Odile' would stand in the system text"


def make_llm_run(root: Path, *, text: str = CRITIQUE, finished: bool = True) -> RunFolder:
    """Planner, TextGrad and a judge over four rounds; `text` is what they say wherever they say something."""
    texts = {"reason": PLANNED, "rules": RULES, "refused": REFUSED} if text == CRITIQUE else {}
    run = RunFolder.create(root, "valley", yaml.safe_dump(_task()), source=root, digest="0" * 12, name="valley-llm")
    for prompt in (SEED, SHORT, SHOWN, ASKED):
        run.save_prompt(prompt)
    save_scores(run, Candidate(prompt=SEED.id), "test", 0, "")
    save_scores(run, Candidate(prompt=ASKED.id, adapter=ADAPTER), "test", 12, "")
    for adapter, rewritten in ((LOSER, 0), (ADAPTER, 10)):
        save_training(run, adapter)
        log = run.adapter_folder(adapter) / "training.json"
        log.write_text(json.dumps(json.loads(log.read_text()) | {"rewritten": rewritten}))
    run.append(a_baseline().model_copy(update={"usage": _usage(0)}))
    rounds = _rounds(text, **texts)
    for row in rounds:
        run.append(row)
    if finished:
        run.append(an_llm_outcome(rounds[-1]))
    return run


def llm_rounds() -> list[Round]:
    return _rounds(CRITIQUE, reason=PLANNED, rules=RULES, refused=REFUSED)


def an_llm_outcome(last: Round) -> Outcome:
    outcome = an_outcome(last)
    spend = outcome.spend.model_copy(update={"usd": sum(used.usd for used in _usage(5).values())})
    return outcome.model_copy(update={"usage": _usage(5), "spend": spend})


def _task() -> dict[str, object]:
    return TASK | {
        "planner": "llm", "budget": {"rounds": 6, "minutes": 30.0, "train_tokens": None, "usd": 0.05},
        "llm": {"model": "some-large-model", "editor": {"model": "some-small-model"}, "price": {"input": 1.0}},
    }  # fmt: skip


def _rounds(text: str, reason: str = "", rules: str = "", refused: str = "") -> list[Round]:
    seed, short, asked = (Candidate(prompt=prompt.id) for prompt in (SEED, SHORT, ASKED))
    tuned = Candidate(prompt=ASKED.id, adapter=ADAPTER)
    edit, train = EditPrompt(), TrainLora(rows="both", epochs=4)
    rows = [
        a_round(1, edit, seed, short, 0.0, 0.04, kept=True),
        a_round(2, train, short, Candidate(prompt=SHORT.id, adapter=LOSER), 0.04, 0.0, kept=False),
        a_round(3, edit, short, asked, 0.04, 0.33, kept=True),
        a_round(4, train, asked, tuned, 0.33, 1.0, kept=True),
    ]
    proposal = Proposal(prompt=ASKED.id, note=refused or text)
    remaking = Remaking(asked=12, tried=9, kept=5, recalled=2, before=0.1, after=0.45)
    critiques = tuple(
        Critique(part=part, example=f"train:{line}", text=text)
        for part, line in (("system", 3), ("system", 7), ("demos", 7), ("questions", 11))
    )
    changes = {"critiques": critiques, "proposals": (*rows[0].trial.proposals, proposal)}
    rows[0] = rows[0].model_copy(update={"trial": rows[0].trial.model_copy(update=changes)})
    rows[2] = rows[2].model_copy(update={"trial": rows[2].trial.model_copy(update={"remaking": remaking})})
    return [_planned(row, reason or text, rules or f"edit_prompt: {text}") for row in rows]


def _planned(row: Round, reason: str, rules: str) -> Round:
    """Decided by the planner, but for the third round, in which it did not answer."""
    decision = row.decision
    if row.number != 3:
        decision = Decision(
            move=decision.move, reason=reason, numbers=decision.numbers, by="planner", rules_would=rules
        )
    usage = _usage(row.number)
    spend = row.spend.model_copy(
        update={
            "usd": sum(used.usd for used in usage.values()),
            "llm_tokens": sum(used.input_tokens + used.output_tokens for used in usage.values()),
        }
    )
    return row.model_copy(update={"decision": decision, "usage": usage, "spend": spend})


def _usage(step: int) -> dict[Role, Usage]:
    """Cumulative, as the ledger has it: the judge at every step, the planner before each, the editor in edits."""
    edits = (step + 1) // 2
    usage: dict[Role, Usage] = {
        "planner": Usage(calls=step, input_tokens=900 * step, output_tokens=80 * step, usd=0.00034 * step),
        "editor": Usage(calls=20 * edits, cached=3 * edits, input_tokens=9000 * edits, output_tokens=2100 * edits,
                        usd=0.0031 * edits),
        "judge": Usage(calls=12 * step + 12, cached=4, input_tokens=4000 * step, output_tokens=200, usd=0.0009 * step),
    }  # fmt: skip
    return {role: used for role, used in usage.items() if used.calls}
