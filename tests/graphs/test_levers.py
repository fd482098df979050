"""The prompt lever: every proposal is checked before it is compared, and a round without an edit says why."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.records.edits import Critique, Edit, Edits
from agent.records.examples import Prompt
from agent.records.rounds import Trial
from graphs.context import new_run
from graphs.session import open_session
from tests.llm.server import Reply, serving

CRITIQUES = (Critique(part="system", example="train:1", text="Ask for the form."),)
FAIR = Edit(prompt=Prompt(system="Begin with ANSWER: and answer the question."), note="fair")
LEAKY = [
    Edit(prompt=Prompt(system="The mayor of Benn is Corolt."), note="leaky"),
    Edit(prompt=Prompt(system="Answer.", template="Not: name the mayor of Mirr. {question}"), note="sly"),
]


class Proposing:
    """An editor that proposes what it was given."""

    name = "given"

    def __init__(self, edits: Edits) -> None:
        self._edits = edits

    def propose(self, *_: Any) -> Edits:
        return self._edits


@pytest.fixture
def trial(tiny_task: Callable[..., Path], tmp_path: Path) -> Callable[[Edits], Trial]:
    """The trial of one round of editing with these proposals."""

    def run(edits: Edits) -> Trial:
        overrides = ["policy=prompt-only", "budget.rounds=1"]
        with open_session(new_run(tiny_task(), overrides, tmp_path / "runs")) as session:
            vars(session.services)["editor"] = Proposing(edits)
            session.go()
            [row] = session.services.folder.rounds()
        return row.trial

    return run


def test_edits_that_give_rows_away_are_shown_and_not_compared(trial: Callable[[Edits], Trial]) -> None:
    made = trial(Edits(edits=(*LEAKY, FAIR), critiques=CRITIQUES, remarks=("one thing was left",)))
    compared = [proposal.prompt for proposal in made.proposals if proposal.merit is not None]
    assert len(compared) == 2 and compared[1] == FAIR.prompt.id
    refused = {
        proposal.prompt: (proposal.note, proposal.refused) for proposal in made.proposals if proposal.merit is None
    }
    assert refused == {
        LEAKY[0].prompt.id: ("leaky", 'it gives away the answer of train:3: "corolt"'),
        LEAKY[1].prompt.id: ("sly", 'it gives away the question of validation:4: "name the mayor of mirr"'),
    }
    assert made.critiques == CRITIQUES
    assert "one thing was left" in made.note and "edits refused because they give rows away: 2" in made.note
    assert "Corolt" not in made.note


def test_edits_that_are_too_long_are_refused_whatever_editor_made_them(trial: Callable[[Edits], Trial]) -> None:
    long = Edit(prompt=Prompt(system="Answer. " * 800), note="long")
    made = trial(Edits(edits=(long, FAIR)))
    [refused] = [proposal for proposal in made.proposals if proposal.merit is None]
    assert refused.refused == "it makes a prompt of 6410 characters; edit.max_length allows 6000"
    assert "edits refused because they are too long: 1" in made.note


def test_a_round_without_an_edit_says_why(trial: Callable[[Edits], Trial]) -> None:
    made = trial(Edits(edits=tuple(LEAKY[:1]), critiques=CRITIQUES, remarks=("the reply had no tags",)))
    assert made.candidate is None and made.critiques == CRITIQUES
    assert made.note == "The prompt stays as it is: the reply had no tags; edits refused because they give rows away: 1"
    assert [proposal.rows for proposal in made.proposals] == [0]


@pytest.mark.parametrize(("editor", "rows"), [("textgrad", 3), ("rules", 1)])
def test_planner_and_textgrad_see_as_many_train_rows_as_are_to_be_criticised(
    tiny_task: Callable[..., Path], tmp_path: Path, editor: str, rows: int
) -> None:
    with serving(lambda _: Reply("Ask for the form.")) as at:
        edit = {"editor": editor, "minibatch": 1, "critiques": 3, "rewrites": 0}
        # Rows that cannot be remade are edited first.
        own = {"without": ["remaking"], "llm": {"model": "judge-1", "base_url": at.url}}
        task = tiny_task(planner="llm", edit=edit, **own)
        with open_session(new_run(task, ["budget.rounds=1"], tmp_path / "runs")) as session:
            session.go()
            [row] = session.services.folder.rounds()
        [plan, *_] = [request.text for request in at.requests if "Rules would:" in request.text]
        seed = session.services.folder.baseline()
    assert plan.count("- question <<< Who is the mayor of") == rows
    assert seed and len(session.services.folder.load(seed.seed, "train").scores) == rows  # no other rows are answered
    assert len({critique.example for critique in row.trial.critiques}) == (rows if editor == "textgrad" else 0)


def test_textgrad_edits_in_a_run_with_its_critiques_in_the_ledger(
    tiny_task: Callable[..., Path], tmp_path: Path
) -> None:
    with serving(
        lambda _: Reply("Ask for the form. <IMPROVED_VARIABLE>The mayor is Heskzan.</IMPROVED_VARIABLE>")
    ) as at:
        task = tiny_task(llm={"model": "judge-1", "base_url": at.url}, edit={"editor": "textgrad", "minibatch": 4})
        with open_session(new_run(task, ["policy=prompt-only", "budget.rounds=1"], tmp_path / "runs")) as session:
            session.go()
            [row] = session.services.folder.rounds()
    assert {(critique.part, critique.example) for critique in row.trial.critiques} >= {
        ("system", "train:1"),
        ("questions", "train:4"),
    }
    assert any("it gives away the answer of train:1" in proposal.refused for proposal in row.trial.proposals)
    assert any("from train rows" in proposal.note for proposal in row.trial.proposals)  # the rules' own
    assert "TextGrad's question template was left: it must hold {question} exactly once" in row.trial.note
