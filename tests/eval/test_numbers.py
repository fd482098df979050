"""The numbers that are found in a text, and which of them are the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.parsing.numbers import final_number


def same(output: str, answer: str) -> bool:
    found, wanted = final_number(output, "####"), final_number(answer, "####")
    return found is not None and wanted is not None and found.same(wanted)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("3/4 of a cup", "0.75"),
        (r"$\dfrac{3}{4}$", "6/8"),
        (r"\frac34", "¾"),
        (r"x = -\frac{2}{3}", r"\frac{-2}{3}"),
        ("-1/2", "-0.5"),
        ("1 1/2 cups", "1.5"),
        ("1½", r"1\frac{1}{2}"),
        ("48 / 2", "24"),
        ("2 sqrt 12", r"4\sqrt{3}"),
        ("√3", "sqrt(3)"),
        ("the square root of 16 km", "4"),
        (r"\frac{\sqrt{2}}{2}", "1/sqrt(2)"),
        ("sqrt(3/4)", r"\frac{\sqrt3}{2}"),
        (r"\sqrt[3]{27}", "3"),
        ("1 + √2", r"\sqrt{2}+1"),
        (r"\frac{1+\sqrt{5}}{2}", "(1 + sqrt 5)/2"),
        (r"\sqrt{2+\sqrt{3}}", r"\sqrt{2 + \sqrt{3}}"),
        ("2π", r"2\pi"),
        ("pi/2", r"\frac{\pi}{2}"),
        ("50%", "0.5"),
        (r"50\%", "50 percent"),
        ("50 per cent", "50"),
        ("12 cm^2", "12"),
        ("12 m^{3}", "12 cubic metres"),
        (r"1.5 \times 10^{3}", "1,500"),
        ("2^10", "1024"),
        ("1{,}000", "1000"),
        (r"\boxed{\frac{7}{8}}", "7/8"),
        ("#### 1/2 (of 3)", "0.5"),
        ("3/4/2024", "2024"),
        ("between 5-10", "10"),
        ("on 2024-01-05", "5"),
    ],
)
def test_one_number_in_two_spellings(first: str, second: str) -> None:
    assert same(first, second)
    assert same(second, first)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("1/4", "3/4"),
        ("1/4", "4"),
        ("-3/4", "3/4"),
        (r"\frac{1}{4}", r"\frac{3}{4}"),
        ("5 sqrt 3", "2 sqrt 3"),
        ("sqrt 3", "3"),
        ("1 + √2", "3 + √2"),
        (r"\sqrt{2+\sqrt{3}}", r"\sqrt{3+\sqrt{3}}"),
        ("2π", "2"),
        ("π/2", "π/3"),
        ("0.5%", "50%"),
        ("1 1/2", "1/2"),
        ("3/4/2024", "4/2024"),
        ("1/3", "0.333"),
        ("1/0", "1"),
        ("many pies", "3"),
    ],
)
def test_two_numbers(first: str, second: str) -> None:
    assert not same(first, second)
    assert not same(second, first)


@given(st.integers(-99, 99), st.integers(1, 99), st.integers(2, 9))
def test_a_fraction_is_the_same_however_it_is_written(above: int, below: int, times: int) -> None:
    wider = f"{above * times}/{below * times}"
    assert same(f"It is {above}/{below}.", wider)
    assert same(rf"\frac{{{above}}}{{{below}}}", wider)
    assert not same(f"{above}/{below}", f"{above + 1}/{below}")


@given(st.integers(1, 99), st.integers(1, 99), st.integers(2, 99))
def test_a_square_may_be_taken_out_of_a_root(factor: int, inside: int, outside: int) -> None:
    assert same(rf"{factor}\sqrt{{{inside * outside * outside}}}", f"{factor * outside} sqrt {inside}")


@pytest.mark.parametrize("text", ["9" * 5000, "sqrt(" * 60 + ")" * 60, "√" + "9" * 900, "(" * 300, "2^999 × 10^999"])
def test_what_is_long_or_nested_can_be_read(text: str) -> None:
    assert same(text, text) if text[0] != "(" else final_number(text, "") is None


@given(st.text(r"0123456789 ./\-()^{}[]√π%$,afcrqst", max_size=30))
def test_any_text_can_be_read(text: str) -> None:
    found = final_number(text, "####")
    assert found is None or found.same(found)
