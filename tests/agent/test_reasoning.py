"""What a reasoning model thinks is no part of its answer, however it is spelled."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.reasoning import SPELLINGS, without_thoughts


@pytest.mark.parametrize(("opened", "closed"), SPELLINGS)
def test_every_spelling_is_left_out_whole_cut_off_or_with_its_closing_tag_alone(opened: str, closed: str) -> None:
    assert without_thoughts(f"{opened}\nRome? No.\n{closed}\n\nParis") == "Paris"
    assert without_thoughts(f"Rome? No.\n{closed}\n\nParis") == "Paris"
    assert without_thoughts(f"{opened}\nRome? No, I should say Par") == ""
    assert without_thoughts(f"Paris\n{opened}Was that right?{closed}") == "Paris"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>They say <think> opens.</think>Paris", "Paris"),
        ("<think>They say </think> closes.\n</think>\nParis", "Paris"),
        ("I was told to use <think> tags.</think>Paris", "Paris"),
        ("<think></think>\n\nParis", "Paris"),
        ("<think>a</think><think>b</think>Paris", "Paris"),
        ("<THINK>Rome?</THINK> Paris", "Paris"),
        ('<think>{"grade": 1}</think>{"grade": 5}', '{"grade": 5}'),
        ("<|channel|>analysis<|message|>Rome?<|end|><|start|>assistant<|channel|>final<|message|>Paris", "Paris"),
        ("<|channel|>analysis<|message|>Rome?<|end|><|channel|>final<|message|>Paris<|return|>", "Paris"),
        ("<|start|>assistant<|channel|>analysis<|message|>Rome, so I sh", ""),
        ("<|channel|>final <|constrain|>json<|message|>{}", "{}"),
        ("analysisThe user asks. Rome?assistantfinalParis", "Paris"),
    ],
)
def test_thoughts_that_speak_of_tags_nested_or_in_channels_are_left_out(text: str, answer: str) -> None:
    assert without_thoughts(text) == answer


@pytest.mark.parametrize(
    "text",
    [
        "Paris",
        "  Paris \n",
        "The tag <think> opens thoughts.",
        '{"reason": "it left </think> open", "grade": 2}',
        '["</think>"]',
        "analysis shows a rise",
        "I think so",
        "",
    ],
)
def test_a_text_without_thoughts_stays_as_it_is(text: str) -> None:
    assert without_thoughts(text) == text


@given(st.text(alphabet="<>/|[]think \nabc{}", max_size=60))
def test_nothing_is_left_to_leave_out(text: str) -> None:
    once = without_thoughts(text)
    assert without_thoughts(once) == once
