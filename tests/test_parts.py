"""Parts of prompts as texts, and what a critic is asked and says of them: rules for all inputs."""

from hypothesis import assume, given
from hypothesis import strategies as st

from agent.config import Editing
from agent.records import Demo, ExampleScore, Prompt
from agent.scoring import Contains
from eval.scorers import TaskScorers
from tools.critique import by_part, verdict
from tools.parts import Parts, Unusable, read, written

WORDS = st.text(st.sampled_from("abc{}<>/$%\\\n éß"), max_size=30)
DEMOS = st.lists(st.builds(Demo, question=WORDS.map(str.strip), answer=WORDS.map(str.strip)), max_size=4)
SCORERS = TaskScorers([Contains(kind="contains")])


@given(DEMOS)
def test_demonstrations_come_back_as_they_were_written(demos: list[Demo]) -> None:
    assert read(f"Here they are:\n{written(demos)}\nThat is all.") == demos


@given(st.sampled_from(["system", "demos", "questions"]), WORDS, WORDS)
def test_no_text_makes_a_prompt_that_cannot_be_used(part: str, template: str, text: str) -> None:
    prompt = Prompt(template=template + "{question}")
    try:
        edit, _ = Parts(prompt, [], SCORERS, Editing(max_length=40)).put(part, text)  # type: ignore[arg-type]
    except Unusable:
        return
    assert edit != prompt and edit.length <= 40
    assert part != "questions" or edit.template.count("{question}") == 1


@given(WORDS, WORDS)
def test_each_part_gets_what_was_said_of_it(system: str, questions: str) -> None:
    assume("<" not in system + questions)
    reply = f"Well. <system>{system}</system>\n<questions>{questions}"  # cut off
    found = by_part(reply, ("system", "demos", "questions"))
    expected = {"system": system.strip(), "questions": questions.strip()}
    assert found == {part: text for part, text in expected.items() if text}


def test_the_loss_says_what_is_wrong_even_where_the_scorers_have_no_words() -> None:
    silent = ExampleScore(example="train:1", output="", content=1, style=0)
    half = silent.model_copy(update={"content": 0.4, "faults": ("Too long.",)})
    assert verdict(silent, "<<<4>>>") == "The style is not as wanted."
    assert verdict(half, "<<<4>>>") == "Too long.\nThe content is 40% right.\nThe right answer: <<<4>>>"
    assert verdict(half) == "Too long.\nThe content is 40% right."
