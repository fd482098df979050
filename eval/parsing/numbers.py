"""The numbers in a text: decimals, fractions, roots and multiples of pi, plain or in LaTeX, compared exactly."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from eval.parsing.surds import ONE, PI, Value, divided, is_rational, negated, product, rational, root, sum_of, unknown

DECIMAL = r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
NUMBER = re.compile(DECIMAL + r"(?:[eE][-+]?\d{1,3}(?!\d))?")
POWER = re.compile(r"\s*\^\s*(?:\{([-+]?\d{1,3})\}|([-+]?\d{1,3})(?!\d))")
TEN = re.compile(r"\s*(?:\*|×|·|x|\\times|\\cdot)\s*(?=10\s*\^)")
TIMES = re.compile(r"\s*(?:(?:\*|×|·|\\times|\\cdot)\s*)?(?=\\?sqrt|√|\\?pi(?![a-z])|π|square root of)")
FRACTION = re.compile(r"\\[dtc]?frac\s*")
DIGIT = re.compile(r"\d")
ROOT = re.compile(r"(?:\\?sqrt|√|square root of)\s*(?:\[(\d)\])?\s*")
CIRCLE = re.compile(r"(?:\\pi|π|\bpi)(?![a-z])")
OVER = re.compile(r"\s?/\s?")
MIXED = re.compile(r"\s*(?=\\[dtc]?frac|(?<=\s)\d+/\d)")
SIGN = re.compile(r"\s*([-+])\s*")
PERCENT = re.compile(r"\s*\\?%|\s+per\s?cent\b")
# Where a number may begin.
START = re.compile(r"\d|\.\d|√|\\?sqrt|\\[dtc]?frac|\\pi(?![a-z])|π|\bpi\b|square root of|\(")
PAIRS = {"{": "}", "(": ")"}


@dataclass(frozen=True)
class Quantity:
    """A number, and whether a percent sign follows it: 50 % equals both 50 and 0.5."""

    value: Value
    percent: bool = False

    def same(self, quantity: "Quantity") -> bool:
        """Whether both are one number, exactly; if only one of them is a percentage, by its sign or without."""
        if self.value == quantity.value:
            return True
        share, plain = (self, quantity) if self.percent else (quantity, self)
        return share.percent and not plain.percent and divided(share.value, rational(100)) == plain.value


def final_number(text: str, marker: str) -> Quantity | None:
    """The number right after the last marker; the last one of the text if there is no marker, or no number after it."""
    if marker and marker in text and (found := next(numbers(text.rpartition(marker)[2]), None)):
        return found
    *_, last = (None, *numbers(text))
    return last


def numbers(text: str) -> Iterator[Quantity]:
    """All numbers of a text, in order. The parts of a date (3/4/2024) or a range (5-10) are numbers by themselves."""
    text, place = _plain(text), 0
    while match := START.search(text, place):
        start = match.start()
        found = None if _is_exponent(text, start) else _chain(text, start)
        if found is None:
            place = start + len(match[0])
            continue
        value, place = found
        if _is_negative(text, start):
            value = negated(value)
        yield Quantity(value, PERCENT.match(text, place) is not None)


def _plain(text: str) -> str:
    """The text with one minus sign, without dollars and LaTeX's spacing, and ½ as 1/2."""
    text = text.replace("\N{MINUS SIGN}", "-").replace("{,}", ",")
    text = re.sub(r"\\left|\\right|\\[,!;:]", "", text)
    text = re.sub(r"(?<!\w)-\$", "-", text).replace("\\$", "").replace("$", " ")
    return "".join(_vulgar(letter) for letter in text)


def _vulgar(letter: str) -> str:
    parts = unicodedata.normalize("NFKC", letter) if letter > "\x7f" else letter
    return f" {parts.replace(chr(0x2044), '/')}" if chr(0x2044) in parts else letter.replace("\N{FRACTION SLASH}", "/")


def _is_exponent(text: str, start: int) -> bool:
    """Whether it is an exponent of what comes before it, such as a unit (cm^2, m^{3})."""
    return re.search(r"\^\{?[-+]?$", text[max(0, start - 3) : start]) is not None


def _is_negative(text: str, start: int) -> bool:
    """Whether a minus sign precedes it that is not between two numbers or words (5-10, A-1)."""
    return start > 0 and text[start - 1] == "-" and not re.match(r"[\w)\]%}]", text[start - 2 : start - 1] or " ")


def _chain(text: str, start: int) -> tuple[Value, int] | None:
    """The number that starts here, and where it ends: a term, or a sum of several with a root or pi among them."""
    found = _term(text, start)
    if found is None:
        return None
    value, place = found
    while (sign := SIGN.match(text, place)) and (following := _term(text, sign.end())):
        if is_rational(value) and is_rational(following[0]):
            break
        value = sum_of(value, negated(following[0]) if sign[1] == "-" else following[0])
        place = following[1]
    return value, place


def _term(text: str, start: int) -> tuple[Value, int] | None:
    """A product or quotient without a sign, and where it ends."""
    found = _factor(text, start)
    if found is None:
        return None
    value, place = found
    if re.fullmatch(r"\d+", text[start:place]):
        value, place = _mixed(text, value, place)
    while times := TEN.match(text, place) or TIMES.match(text, place):
        following = _factor(text, times.end())
        if following is None:
            break
        value, place = product(value, following[0]), following[1]
    over = OVER.match(text, place)
    below = _factor(text, over.end()) if over else None
    if below is not None and not _is_date(text, start, below[1]):
        quotient = divided(value, below[0])
        if quotient is not None:
            return quotient, below[1]
    return value, place


def _mixed(text: str, whole: Value, place: int) -> tuple[Value, int]:
    """A whole number with the proper fraction that follows it: 1 1/2, or 1\\frac{1}{2}."""
    gap = MIXED.match(text, place)
    part = _term(text, gap.end()) if gap else None
    if part and is_rational(part[0]) and 0 < part[0].get(ONE, Fraction(0)) < 1:
        return sum_of(whole, part[0]), part[1]
    return whole, place


def _is_date(text: str, start: int, end: int) -> bool:
    """Whether a further slash makes a date of two numbers (3/4/2024)."""
    return (
        re.search(r"\d\s?/\s?$", text[max(0, start - 4) : start]) is not None
        or re.match(r"\s?/\s?\d", text[end : end + 4]) is not None
    )


def _factor(text: str, start: int) -> tuple[Value, int] | None:
    if match := NUMBER.match(text, start):
        return _raised(text, _decimal(match[0]), match.end())
    if match := CIRCLE.match(text, start):
        return {PI: Fraction(1)}, match.end()
    if match := ROOT.match(text, start):
        inner = _argument(text, match.end())
        if inner is None:
            return None
        return root(inner[0], int(match[1] or 2)), inner[1]
    if match := FRACTION.match(text, start):
        above = _argument(text, match.end(), DIGIT)
        below = _argument(text, above[1], DIGIT) if above else None
        quotient = divided(above[0], below[0]) if above and below else None
        return None if quotient is None or below is None else (quotient, below[1])
    if text.startswith("(", start) and (group := _argument(text, start)):
        # A bracket is one number only where it sums roots; else the numbers inside it are read one by one.
        return None if is_rational(group[0]) or any("(" in key.unknown for key in group[0]) else group
    return None


def _decimal(written: str) -> Value:
    """Its value; of one with more digits than Python makes a number of, what is written."""
    return rational(Fraction(written.replace(",", ""))) if len(written) <= 1000 else unknown(written)


def _raised(text: str, value: Value, place: int) -> tuple[Value, int]:
    """The number to the power that follows it, if one does, and it is a sensible one."""
    power = POWER.match(text, place)
    base = value.get(ONE, Fraction(0))
    if power is None or base == 0 or abs(base.numerator) > 1000 or base.denominator > 1000:
        return value, place
    return rational(base ** int(power[1] or power[2])), power.end()


def _argument(text: str, start: int, bare: re.Pattern[str] = NUMBER) -> tuple[Value, int] | None:
    """The content of the brackets that open here, or the `bare` number: of \\frac12 a digit, of sqrt 12 all of it."""
    if text[start : start + 1] in PAIRS and start < len(text):
        end = _closing(text, start)
        return None if end is None else (_whole(text[start + 1 : end]), end + 1)
    match = bare.match(text, start)
    return (_decimal(match[0]), match.end()) if match else None


def _whole(text: str) -> Value:
    """The text as one number; an unknown where it is none, or more than one."""
    bare = text.strip()
    signed = bare.removeprefix("-")
    found = _chain(signed, 0) if signed else None
    if found is None or found[1] != len(signed):
        return unknown("(" + "".join(bare.split()) + ")")
    return negated(found[0]) if signed != bare else found[0]


def _closing(text: str, start: int) -> int | None:
    """Where the bracket that opens here is closed."""
    opening, depth = text[start], 0
    for place in range(start, min(len(text), start + 200)):
        depth += (text[place] == opening) - (text[place] == PAIRS[opening])
        if depth == 0:
            return place
    return None
