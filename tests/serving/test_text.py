"""An answer's pieces, put together, are its text: whatever the tokens are, and wherever a stop text falls."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.model.chat_template import NEXT_TURN
from ui.serve.text import AnswerText

LETTERS = st.lists(
    st.sampled_from([" ", "\n", "a", "b", "User:", "ab", "é".encode()[:1], "é".encode()[1:]]), max_size=40
)


def read(tokens: list[object], ids: list[int]) -> str:
    """As a byte-level tokenizer decodes: a part of a character is a sign of its own until the rest comes."""
    parts = (tokens[place] for place in ids)
    return b"".join(p if isinstance(p, bytes) else str(p).encode() for p in parts).decode(errors="replace").strip()


def told(tokens: list[object], stops: tuple[str, ...] = (), plain: bool = False) -> tuple[list[str], bool, str]:
    """The pieces, whether the text ended before its tokens did, and the stop text that ended it."""
    text = AnswerText(lambda ids: read(tokens, ids), stops, plain)
    pieces = []
    for place in range(len(tokens)):
        if text.add(place, streams=True):
            return [*pieces, text.rest()], True, text.ended_by
        pieces.append(text.piece())
    return [*pieces, text.rest()], False, text.ended_by


@given(LETTERS)
def test_pieces_are_the_text(tokens: list[object]) -> None:
    pieces, stopped, ended_by = told(tokens)
    assert "".join(pieces) == read(tokens, list(range(len(tokens)))) and not stopped and not ended_by


@given(LETTERS, st.sampled_from([("ab",), ("\n\n", "ba"), ("b a", "aa"), ("User",)]))
def test_a_text_ends_before_the_first_stop(tokens: list[object], stops: tuple[str, ...]) -> None:
    pieces, stopped, ended_by = told(tokens, stops)
    text = "".join(pieces)
    assert not any(stop in text for stop in stops)
    whole = read(tokens, list(range(len(tokens))))
    assert whole.startswith(text) and stopped == any(stop in whole for stop in stops)
    assert whole[len(text) :].lstrip().startswith(ended_by.lstrip()) and bool(ended_by) == stopped


@given(LETTERS)
def test_without_a_chat_template_it_ends_before_the_users_next_turn(tokens: list[object]) -> None:
    pieces, _, ended_by = told(tokens, plain=True)
    assert not ended_by
    whole = read(tokens, list(range(len(tokens))))
    assert "".join(pieces) == NEXT_TURN.split(whole, maxsplit=1)[0].rstrip()


@pytest.mark.parametrize("streams", [False, True])
def test_a_long_text_is_told_whole(streams: bool) -> None:
    words = [f" word{place}" for place in range(3000)]
    text = AnswerText(lambda ids: "".join(words[place] for place in ids).strip(), ("word2500",))
    pieces = []
    for place in range(len(words)):
        if text.add(place, streams):
            break
        pieces.append(text.piece())
    told = "".join([*pieces, text.rest()])
    assert told == "".join(words[:2500]).strip() and not re.search("word2500", told)
