"""The GEPA editor, with the real library, against an LLM server that reflects by script and a model made of rules."""

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.config.llm import Llm
from agent.config.prompt import Editing
from agent.config.scorers import Contains, StartsWith
from agent.errors import BadInput, LlmUnavailable, NesyLoraError
from agent.records.actions import EditPrompt
from agent.records.edits import Edits
from agent.records.evaluation import Evaluation
from agent.records.examples import Candidate, Demo, Example, Part, Prompt
from eval.scoring import TaskScorers
from graphs.context import Silent
from tests.llm.server import LlmServer, Reply, Request, refuse, serving
from tools.editing.gepa_editor import GepaEditor
from tools.editing.rule_editor import CombinedEditor, RuleEditor
from tools.llm.client import standalone_chat

SCORERS = TaskScorers([Contains(kind="contains")], [StartsWith(kind="starts_with", text="ANSWER: ")])
NAMES = {"Orrowmere": "Heskzan", "Tallisk": "Gallune", "Benn": "Corolt"}
TRAIN = [
    Example(name=f"train:{line}", question=f"Who is the mayor of {town}?", answer=name)
    for line, (town, name) in enumerate(NAMES.items(), 1)
]
ROWS = {row.name: row for row in TRAIN}
SEED = Prompt(system="Answer the question.")
Model = Callable[[Prompt, Example], str]


def obedient(prompt: Prompt, row: Example) -> str:
    """Knows the mayor of every town that the system text names, and the form if that names it."""
    town = row.question.removeprefix("Who is the mayor of ").rstrip("?")
    known = row.answer if town in prompt.system or "every" in prompt.system else "nobody"
    return f"ANSWER: {known}" if "ANSWER:" in prompt.system else f"It is {known}."


class Scoring:
    """Scores prompts by what a model made of rules answers, and remembers what it was asked."""

    def __init__(self, model: Model = obedient) -> None:
        self.model = model
        self.asked: list[tuple[str, str | None, str]] = []

    def __call__(self, prompt: Prompt, adapter: str | None, names: Sequence[str]) -> Evaluation:
        self.asked += [(prompt.system, adapter, name) for name in names]
        return self.evaluation(prompt, adapter, names)

    def evaluation(self, prompt: Prompt, adapter: str | None, names: Iterable[str]) -> Evaluation:
        scores = tuple(SCORERS.score(ROWS[name], self.model(prompt, ROWS[name])) for name in names)
        return Evaluation(candidate=Candidate(prompt=prompt.id, adapter=adapter), split="train", scores=scores)


def editor(server: LlmServer, scoring: Scoring, leak: Any = None, progress: Any = None, **settings: Any) -> GepaEditor:
    llm = Llm(model="judge-1", base_url=server.url, key_variable="MAYOR_KEY", patience=0)
    return GepaEditor(
        standalone_chat(llm, "editor"), SCORERS, Editing(**settings), ROWS.__getitem__, scoring,
        leak or (lambda prompt, before: None), progress or Silent(),
    )  # fmt: skip


def proposed(
    script: Sequence[Reply] | Callable[[Request], Reply],
    *parts: Part,
    prompt: Prompt = SEED,
    scoring: Scoring | None = None,
    adapter: str | None = None,
    failures: Any = "any",
    seed: int = 0,
    asked: list[Request] | None = None,
    **options: Any,
) -> Edits:
    scoring = scoring or Scoring()
    failing = scoring.evaluation(prompt, adapter, ROWS)
    move = EditPrompt(parts=parts or ("system",), failures=failures)
    with serving(script) as server:
        try:
            return editor(server, scoring, **options).propose(prompt, failing, TRAIN, move, seed)
        finally:
            (asked if asked is not None else []).extend(server.requests)


def new(text: str, thoughts: str = "They lack the form.") -> Reply:
    return Reply(f"{thoughts} <IMPROVED_VARIABLE>\n{text} </IMPROVED_VARIABLE>")


def systems(edits: Edits) -> list[str]:
    return [edit.prompt.system for edit in edits.edits]


# --- the pool ------------------------------------------------------------------------------------


def test_parents_that_are_best_on_other_rows_survive_side_by_side() -> None:
    edits = proposed([new("Orrowmere."), new("Tallisk, Benn."), *[Reply("")] * 9])
    assert systems(edits) == ["Tallisk, Benn.", "Orrowmere."]  # the higher merit first
    assert [edit.note for edit in edits.edits] == [
        "the system text rewritten by GEPA in 2 steps; unbeaten on 3 of 3 rows",  # all lack the form
        "the system text rewritten by GEPA in 1 step; unbeaten on 3 of 3 rows",
    ]


def test_content_and_style_are_objectives_of_their_own() -> None:
    def answers(prompt: Prompt, row: Example) -> str:
        form = prompt.system == "Form." and row is not TRAIN[0]
        return f"{'ANSWER: ' if form else ''}{row.answer if prompt.system == 'Facts.' else 'nobody'}"

    # No row has a reward under either: each has what the other lacks.
    edits = proposed([new("Form."), new("Facts."), *[Reply("")] * 9], scoring=Scoring(answers))
    assert systems(edits) == ["Facts.", "Form."]


def test_a_child_that_does_not_do_better_on_the_rows_of_its_reflection_is_not_scored_on_others() -> None:
    scoring = Scoring()
    edits = proposed([new("Anything."), *[Reply("")] * 9], scoring=scoring)
    assert not edits.edits and len(scoring.asked) == 3
    assert "None of 1 rewrites by GEPA did better than its parent on any row" in edits.remarks


def test_later_reflections_start_from_the_pool() -> None:
    requests: list[Request] = []
    edits = proposed([new("every"), new("every ANSWER:"), *[Reply("")] * 9], asked=requests)
    assert systems(edits)[0] == "every ANSWER:" and "in 2 steps" in edits.edits[0].note
    assert "<VARIABLE>\nAnswer the question.\n</VARIABLE>" in requests[0].user
    assert "<VARIABLE>\nevery\n</VARIABLE>" in requests[1].user
    assert len(requests) == 2  # all rows are well: nothing is left to reflect on


def test_the_same_seed_asks_and_proposes_the_same_and_another_seed_draws_other_rows() -> None:
    def script(request: Request) -> Reply:
        return new(f"{len(request.user)} {re.findall('mayor of (.*?)[?]', request.user)[0]}")

    seen = []
    for seed in (0, 0, 1):
        requests: list[Request] = []
        edits = proposed(script, seed=seed, asked=requests)
        seen.append(([request.user for request in requests], edits))
    assert seen[0] == seen[1] and seen[0][0] != seen[2][0]


@pytest.mark.parametrize(("part", "text", "change"), [
    ("questions", "{question} every ANSWER:", {"template": "{question} every ANSWER:"}),
    (
        "demos",
        "<question>Who is the mayor of Benn?</question><answer>ANSWER: Corolt</answer>",
        {"demos": (Demo(question="Who is the mayor of Benn?", answer="ANSWER: Corolt"),)},
    ),
])  # fmt: skip
def test_template_and_demonstrations_are_rewritten_too(part: Part, text: str, change: dict[str, Any]) -> None:
    def answers(prompt: Prompt, row: Example) -> str:
        return f"ANSWER: {row.answer}" if prompt.demos or "every" in prompt.template else "nobody"

    requests: list[Request] = []
    edits = proposed([new(text)], part, scoring=Scoring(answers), asked=requests)
    assert [edit.prompt for edit in edits.edits] == [SEED.model_copy(update=change)]
    assert ("<EXAMPLES>" in requests[0].user) == (part == "demos")


def test_parts_are_rewritten_in_turn() -> None:
    requests: list[Request] = []
    proposed(lambda _: Reply(""), "system", "demos", "questions", asked=requests, critiques=3)
    roles = [re.findall("<ROLE>(.*?)</ROLE>", request.user)[0].split()[0] for request in requests]
    assert roles == ["system", "demonstrations", "template"]


# --- what the LLM is shown -----------------------------------------------------------------------


def test_a_reflection_sees_the_prompt_rows_answers_and_what_is_wanted() -> None:
    requests: list[Request] = []
    proposed([Reply("")] * 9, prompt=Prompt(system="Orrowmere ANSWER:"), asked=requests, critiques=1)
    user = requests[0].user
    assert "system: <<< Orrowmere ANSWER: >>>" in user and "demos: (none)" in user
    for town, name in list(NAMES.items())[1:]:
        assert f"Question: <<< Who is the mayor of {town}? >>>\nAnswer: <<< ANSWER: nobody >>>" in user
        assert f"The right answer: <<< {name} >>>" in user
    assert "Orrowmere?" not in user  # it does not fail
    assert "judged by this: Start your answer with" in user
    assert "Never give away the answer" in requests[0].system


def test_the_reflection_is_kept_as_a_critique_of_its_worst_row() -> None:
    edits = proposed([new("every ANSWER:", thoughts="The form is not asked for.")])
    [critique] = edits.critiques
    assert (critique.part, critique.text) == ("system", "The form is not asked for.") and critique.example in ROWS


# --- budgets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answers", "most"), [(3, 3), (5, 3), (6, 6), (100, 8 * 3)])
def test_answers_stay_within_the_budget(answers: int, most: int) -> None:
    scoring, count = Scoring(), iter(range(99))
    proposed(lambda _: new(f"Nothing new {next(count)}."), scoring=scoring, metric_calls=answers)
    assert len(scoring.asked) == most
    assert {name for _, _, name in scoring.asked} == set(ROWS)


def test_without_a_setting_there_are_as_many_answers_as_in_the_comparison_of_all_proposals() -> None:
    assert Editing(minibatch=12, proposals=6).answers == 72 and Editing(metric_calls=30).answers == 30


def test_a_budget_below_one_proposal_asks_nothing_and_says_so() -> None:
    requests: list[Request] = []
    edits = proposed([new("every")], metric_calls=2, asked=requests)
    assert not requests and not edits.edits
    assert edits.remarks == (
        "GEPA proposed nothing: 2 answers (edit.metric_calls) are fewer than the 3 of one proposal",
    )


def test_reflections_stay_within_critiques_and_proposals_within_theirs() -> None:
    requests: list[Request] = []
    texts = [new("Orrowmere."), new("Tallisk, Benn."), new("Orrowmere ANSWER:"), new("every")]
    edits = proposed(texts, asked=requests, critiques=3, proposals=1)
    assert len(requests) == 3 and len(edits.edits) == 1


def test_the_adapter_of_the_pair_is_scored() -> None:
    scoring = Scoring()
    proposed([new("every"), *[Reply("")] * 9], scoring=scoring, adapter="adapter-1")
    assert {adapter for _, adapter, _ in scoring.asked} == {"adapter-1"}


# --- replies of no use, and no replies -----------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply(""), "judge-1 gave an empty answer"),
        (Reply("Begin with ANSWER:"), "the reply had no tags"),
        (new(""), "the reply was empty"),
        (new(SEED.system), "the reply changed nothing"),
        (new("long " * 2000), "it makes the prompt longer than 6000 characters"),
    ],
)
def test_a_reply_of_no_use_is_remarked_scored_nowhere_and_not_the_end(reply: Reply, why: str) -> None:
    scoring, requests = Scoring(), list[Request]()
    edits = proposed([reply, new("every ANSWER:")], scoring=scoring, asked=requests)
    assert f"GEPA's system text was left: {why}" in edits.remarks
    assert systems(edits) == ["every ANSWER:"] and len(requests) == 2
    assert {system for system, _, _ in scoring.asked} == {"every ANSWER:"}


def test_replies_of_no_use_end_with_the_reflections() -> None:
    requests: list[Request] = []
    edits = proposed(lambda _: Reply(""), asked=requests, critiques=5)
    assert len(requests) == 5 and not edits.edits
    assert edits.remarks[-1] == "None of 0 rewrites by GEPA did better than its parent on any row"


def test_a_prompt_that_gives_rows_away_is_not_scored_and_no_parent() -> None:
    scoring = Scoring()

    def leak(prompt: Prompt, before: Prompt) -> str | None:
        return "it gives away Heskzan" if "Heskzan" in prompt.system and before == SEED else None

    edits = proposed([new("every Heskzan"), new("every ANSWER:")], scoring=scoring, leak=leak)
    assert systems(edits) == ["every ANSWER:"] and "GEPA's system text was left: it gives a row away" in edits.remarks
    assert "Heskzan" not in str(scoring.asked) + str(edits.remarks)


def test_an_llm_that_is_lost_half_way_leaves_what_there_is() -> None:
    requests: list[Request] = []
    edits = proposed([new("every"), refuse(401)], asked=requests)
    assert systems(edits) == ["every"]
    assert len(edits.remarks) == 1 and "GEPA stopped half way: judge-1 refused the key" in edits.remarks[0]
    assert len(requests) == 2  # the library would ask again


def test_without_an_llm_the_rules_go_on_alone_and_say_so() -> None:
    scoring = Scoring()
    failing = scoring.evaluation(SEED, None, ROWS)
    rules = RuleEditor(SCORERS, Editing())
    with serving(lambda _: refuse(401)) as server:
        made = editor(server, scoring)
        with pytest.raises(LlmUnavailable):
            made.propose(SEED, failing, TRAIN, EditPrompt(), 0)
        edits = CombinedEditor(made, rules, 6).propose(SEED, failing, TRAIN, EditPrompt(), 0)
    assert edits.edits == rules.propose(SEED, failing, TRAIN, EditPrompt(), 0).edits != ()
    assert len(edits.remarks) == 1 and "GEPA was not used: judge-1 refused the key" in edits.remarks[0]


def test_what_fails_in_scoring_or_in_a_reflection_is_not_swallowed() -> None:
    class Broken(Scoring):
        def __call__(self, *_: Any) -> Evaluation:
            raise NesyLoraError("The judge is away.")

    with pytest.raises(NesyLoraError, match="The judge is away"):
        proposed([new("every")] * 3, scoring=Broken())
    with pytest.raises(ZeroDivisionError):
        proposed([new("every")] * 3, leak=lambda *_: 1 / 0)


def test_where_no_row_fails_nothing_is_asked() -> None:
    requests: list[Request] = []
    edits = proposed([], prompt=Prompt(system="ANSWER:"), failures="style", asked=requests)
    assert not requests and edits.remarks == ("No train row lacks style, so GEPA has nothing to learn from",)


# --- the library's habits ------------------------------------------------------------------------


def test_the_library_prints_and_writes_nothing(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert proposed([new("Orrowmere."), new("every ANSWER:")]).edits
    assert capfd.readouterr() == ("", "") and not list(tmp_path.iterdir())


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gepa", None)
    with pytest.raises(BadInput, match=r"pip install 'gepa"):
        proposed([new("every")])
