"""Which failing train rows an edit learns from: those that the reward classifier says lack what the edit is about."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.records.actions import EditPrompt
from agent.records.evaluation import Evaluation, ExampleScore
from agent.records.examples import Candidate, Example, Prompt
from agent.records.signal import Diagnosis, ExampleDiagnosis, Need
from graphs.approval import instead
from graphs.context import new_run
from graphs.rows.failures import rows_to_learn_from
from graphs.session import open_session
from tests.fixtures.learnable import TinyTask

ROWS = [Example(name=f"train:{n}", question=f"{n}?", answer="a") for n in range(5)]
SCORES = dict(
    zip((row.name for row in ROWS), [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 1.0), (0.0, 0.0)], strict=True)
)
NEEDS: dict[str, Need] = {"train:1": "style", "train:2": "style", "train:3": "content", "train:4": "both"}
PAIR = Candidate(prompt="0" * 12)


def services(observes: bool = True) -> Any:
    """A run whose classifier finds these needs; the third row's content is wrong, and words may bring it."""

    def evaluate(candidate: Candidate, split: str, names: Sequence[str]) -> Evaluation:
        scores = [ExampleScore(example=n, output="", content=SCORES[n][0], style=SCORES[n][1]) for n in sorted(names)]
        return Evaluation(candidate=candidate, split="train", scores=tuple(scores))

    def diagnose(evaluation: Evaluation, examples: Sequence[Example], *_: object, **__: object) -> Diagnosis:
        assert [row.name for row in examples] == [score.example for score in evaluation.scores]
        found = tuple(ExampleDiagnosis(example=name, need=need) for name, need in NEEDS.items())
        return Diagnosis(failing=4, total=5, examples=found)

    edit = SimpleNamespace(minibatch=5, learned_from=5, editor="rules")
    return SimpleNamespace(
        spec=SimpleNamespace(
            config=SimpleNamespace(edit=edit, plans=False, observes=observes, without=(), seed=0), train=ROWS
        ),
        examples={row.name: row for row in ROWS},
        folder=SimpleNamespace(rounds=list, baseline=lambda: None, prompt=lambda _: Prompt()),
        evaluate=evaluate,
        classifier=SimpleNamespace(diagnose=diagnose),
    )


@pytest.mark.parametrize(
    ("failures", "observes", "rows"),
    [
        ("any", True, "01234"),
        ("style", True, "0124"),
        ("content", True, "034"),
        ("style", False, "014"),  # by the two rewards alone, where the policy does not pay for a probe
        ("content", False, "0234"),
    ],
)
def test_an_edit_learns_from_the_rows_that_lack_what_it_names(failures: Any, observes: bool, rows: str) -> None:
    state: Any = {"number": 0, "best": PAIR}
    seen = rows_to_learn_from(EditPrompt(failures=failures), state, services(observes))
    assert [score.example for score in seen.scores] == [f"train:{row}" for row in rows]


def test_a_round_whose_train_rows_do_not_lack_it_leaves_the_prompt(tiny_task: TinyTask, tmp_path: Path) -> None:
    """A random model knows no mayor, and has no style to lack where none is asked for."""
    task = tiny_task(style=[])
    with open_session(new_run(task, ["policy=prompt-only", "budget.rounds=1"], tmp_path), supervised=True) as session:
        session.go()
        session.go(instead("edit_prompt", failures="style"))
        [row] = session.services.folder.rounds()
    assert row.trial.note == "The prompt stays as it is: no train row of this round lacks style"
    assert not row.verdict.kept


def test_the_papers_switch_runs_on_the_whole_graph(tiny_task: TinyTask, tmp_path: Path) -> None:
    task = tiny_task(
        lora={"epochs": 2, "rank": 4, "batch_size": 2, "enough": 10, "replay": 0}
    )  # rows count as learned at once
    with open_session(new_run(task, ["policy=paper", "budget.rounds=2"], tmp_path / "runs")) as session:
        session.go()
        first, *others = session.services.folder.rounds()
    assert (first.decision.move.action, first.decision.by) == ("train_lora", "paper")
    assert others[0].signal.grad_drop == first.trial.grad_drop
    assert (
        others[0].decision.move == EditPrompt(failures="style") and "its rows are learned" in others[0].decision.reason
    )
