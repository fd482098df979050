"""The TextGrad editor, with the real library, against an LLM server that criticises and rewrites by script."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.config import Editing, Llm
from agent.errors import LlmUnavailable
from agent.records import Candidate, Demo, Evaluation, Example, Part, Prompt
from agent.scoring import Contains, StartsWith
from eval.scorers import TaskScorers
from tests.llm_server import LlmServer, Reply, Request, refuse, serving
from tools.llm import LlmChat
from tools.prompt_edit import Edit, RuleEditor
from tools.textgrad_edit import EditorChain, TextGradEditor

REPO = Path(__file__).parent.parent
SCORERS = TaskScorers([Contains(kind="contains")], [StartsWith(kind="starts_with", text="ANSWER: ")])
TOWNS = {"Orrowmere": "Heskzan", "Tallisk": "Gallune", "Benn": "Corolt", "Mirr": "Dunwick", "Oss": "Petrel"}
ROWS = [
    Example(name=f"validation:{line}", question=f"Who is the mayor of {town}?", answer=name)
    for line, (town, name) in enumerate(TOWNS.items(), 1)
]
SEED = Prompt(system="Answer the question in {curly} words.")
BETTER = "Begin every answer with ANSWER: and name the mayor."


def evaluation(answer: Callable[[Example], str]) -> Evaluation:
    scores = tuple(SCORERS.score(row, answer(row)) for row in ROWS)
    return Evaluation(candidate=Candidate(prompt=SEED.id), split="validation", scores=scores)


FAILING = evaluation(lambda row: "I cannot say {really}.")


def is_step(request: Request) -> bool:
    return "MUST give your response by sending the improved variable" in request.text


def rewriting(reply: str) -> Callable[[Request], Reply]:
    """Criticises when asked to, and gives this reply to the step that rewrites."""
    return lambda request: Reply(reply if is_step(request) else "The prompt does not ask for the form.")


def editor(server: LlmServer, settings: Editing | None = None) -> TextGradEditor:
    chat = LlmChat(Llm(model="judge-1", base_url=server.url, key_variable="MAYOR_KEY", patience=0))
    by_name = {row.name: row for row in ROWS}
    return TextGradEditor(chat, SCORERS, settings or Editing(), by_name.__getitem__)


def proposed(
    reply: str,
    prompt: Prompt = SEED,
    *,
    scores: Evaluation = FAILING,
    parts: tuple[Part, ...] = ("system", "demos"),
    most: int = 6000,
) -> list[Edit]:
    with serving(rewriting(reply)) as server:
        return editor(server, Editing(max_length=most)).propose(prompt, scores, [], parts, seed=0)


# --- rewriting -----------------------------------------------------------------------------------


def test_the_system_text_is_rewritten_and_the_rest_stays() -> None:
    prompt = SEED.model_copy(update={"demos": (Demo(question="2+2?", answer="ANSWER: 4"),)})
    [(edit, note)] = proposed(f"Here: <IMPROVED_VARIABLE>\n{BETTER} </IMPROVED_VARIABLE>", prompt)
    assert edit == prompt.model_copy(update={"system": BETTER})
    assert "TextGrad" in note and "4 critiques" in note


def test_a_prompt_without_system_text_gets_one() -> None:
    [(edit, _)] = proposed(f"<IMPROVED_VARIABLE>{BETTER}</IMPROVED_VARIABLE>", Prompt())
    assert edit == Prompt(system=BETTER)


def test_the_step_sees_the_whole_text_the_critiques_and_what_is_wanted() -> None:
    long = Prompt(system=" ".join(f"word{place}" for place in range(60)))
    with serving(rewriting(f"<IMPROVED_VARIABLE>{BETTER}</IMPROVED_VARIABLE>")) as server:
        editor(server).propose(long, FAILING, [], ("system",), seed=0)
        [step] = filter(is_step, server.requests)
    assert long.system in step.said("user")
    assert "The prompt does not ask for the form." in step.said("user")
    assert all(wanted in step.said("user") for wanted in (*SCORERS.instructions(), "At most 6000 characters."))


def test_the_critic_sees_question_answer_and_faults_but_no_reference() -> None:
    with serving(rewriting(f"<IMPROVED_VARIABLE>{BETTER}</IMPROVED_VARIABLE>")) as server:
        editor(server).propose(SEED, FAILING, ROWS, ("system", "demos"), seed=0)
        sent = [request.text for request in server.requests]
    assert sum("<<<Who is the mayor of" in text and "I cannot say {really}." in text for text in sent) >= 4
    assert any("must start with" in text for text in sent)
    assert not [(name, text) for name in TOWNS.values() for text in sent if name in text]


# --- when the prompt stays as it is --------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        BETTER,
        "<IMPROVED_VARIABLE></IMPROVED_VARIABLE>",
        "<IMPROVED_VARIABLE> \n </IMPROVED_VARIABLE>",
        f"<IMPROVED_VARIABLE>{'blah ' * 2000}</IMPROVED_VARIABLE>",
        f"<IMPROVED_VARIABLE>{SEED.system}</IMPROVED_VARIABLE>",
    ],
    ids=["no tags", "empty", "blank", "too long", "the same"],
)
def test_a_reply_that_cannot_be_used_proposes_nothing(reply: str) -> None:
    assert proposed(reply) == []


def test_demonstrations_count_towards_the_length_of_a_prompt() -> None:
    reply = f"<IMPROVED_VARIABLE>{BETTER}</IMPROVED_VARIABLE>"
    prompt = SEED.model_copy(update={"demos": (Demo(question="2+2?" * 30, answer="ANSWER: 4"),)})
    assert proposed(reply, SEED, most=100)
    assert proposed(reply, prompt, most=100) == []


def test_nothing_is_asked_when_the_system_text_is_not_to_change_or_nothing_fails() -> None:
    sound = evaluation(lambda row: f"ANSWER: {row.answer}")
    with serving(rewriting(BETTER)) as server:
        assert editor(server).propose(SEED, FAILING, [], ("demos",), seed=0) == []
        assert editor(server).propose(SEED, sound, [], ("system",), seed=0) == []
        assert server.requests == []


def test_an_llm_that_does_not_answer_is_told_of() -> None:
    with serving(lambda _: refuse(500)) as server, pytest.raises(LlmUnavailable):
        editor(server).propose(SEED, FAILING, [], ("system",), seed=0)


# --- with the rule editor behind it --------------------------------------------------------------


def test_in_a_chain_both_editors_propose_and_textgrad_comes_first() -> None:
    rules = RuleEditor(SCORERS, Editing())
    with serving(rewriting(f"<IMPROVED_VARIABLE>{BETTER}</IMPROVED_VARIABLE>")) as server:
        edits = EditorChain(editor(server), rules).propose(SEED, FAILING, ROWS, ("system", "demos"), seed=0)
    assert edits[0][0].system == BETTER
    assert edits[1:] == rules.propose(SEED, FAILING, ROWS, ("system", "demos"), seed=0) != []


def test_in_a_chain_the_rules_go_on_alone_when_the_llm_fails_half_way_and_say_so() -> None:
    rules = RuleEditor(SCORERS, Editing())
    with serving(lambda request: refuse(500) if is_step(request) else Reply("Ask for the form.")) as server:
        edits = EditorChain(editor(server), rules).propose(SEED, FAILING, ROWS, ("system", "demos"), seed=0)
    alone = rules.propose(SEED, FAILING, ROWS, ("system", "demos"), seed=0)
    assert [edit for edit, _ in edits] == [edit for edit, _ in alone] != []
    assert all("TextGrad was not used: judge-1 did not answer" in note for _, note in edits)


# --- the library's habits ------------------------------------------------------------------------

IN_AN_EMPTY_FOLDER = """
import sys
from agent.config import Editing
from agent.records import Candidate, Evaluation, Example, ExampleScore, Prompt
from tools.textgrad_edit import TextGradEditor

class Chat:
    def complete(self, system, user):
        return "<IMPROVED_VARIABLE>Better.</IMPROVED_VARIABLE>"

class NoForm:
    def instructions(self):
        return ()

assert "textgrad" not in sys.modules
row = Example(name="validation:1", question="2+2?", answer="4")
score = ExampleScore(example=row.name, output="5", content=0, style=1)
scores = Evaluation(candidate=Candidate(prompt="0"), split="validation", scores=(score,))
edits = TextGradEditor(Chat(), NoForm(), Editing(), lambda name: row).propose(Prompt(), scores, [], ("system",), 0)
assert edits[0][0].system == "Better.", edits
"""


def test_the_library_writes_nothing_where_the_user_is(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TEXTGRAD_LOG_DIR"}
    subprocess.run(
        [sys.executable, "-c", IN_AN_EMPTY_FOLDER],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(REPO)},
        check=True,
    )
    assert list(tmp_path.iterdir()) == []
