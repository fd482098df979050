"""The option letter that a text settles on."""

import pytest

from eval.parsing.choices import option


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("answer: b", "b"),
        ("**Answer:** c", "c"),
        ("the answer is b because it rains", "b"),
        ("The correct answer would be d.", "d"),
        ("option b", "b"),
        ("I'd take option a here", "a"),
        ("b) London", "b"),
        ("b. London", "b"),
        ("Let me think.\nb\n", "b"),
        ("(b)", "b"),
        ("I choose c.", "c"),
        ("The answer is a.", "a"),
        ("The answer is A because of it", "a"),
        ("Answer: a", "a"),
        ("So it is (a) and not (b), hence the answer is (a)", "a"),
        ("Answer: A dog barks, so C", "c"),
        ("A dog barks", None),
        ("The answer is a dog", None),
        ("I can answer a question", None),
        ("the best option is a hammer", None),
        ("It is a", None),
        ("e.g. London", None),
        ("the answer is e-mail", None),
        ("d'accord", None),
        ("Nothing of it", None),
    ],
)
def test_a_letter_is_distinguished_from_a_word(text: str, letter: str | None) -> None:
    assert option(text, "ABCDE") == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("I think it is J", "j"),
        ("The answer is I.", "i"),
        ("I'm sure of it", None),
        ("Answer: I think B", "b"),
        ("so am i", None),
    ],
)
def test_the_pronoun_is_no_choice(text: str, letter: str | None) -> None:
    assert option(text, "ABCDEFGHIJ") == letter


def test_letters_may_be_digits_or_small() -> None:
    assert option("the answer is 2", "1234") == "2"
    assert option("Answer: B", "abcd") == "b"
