"""Ranges of counts, as style scorers of words and lines ask for them: `least` to `most`, both included."""

from agent.errors import BadInput


def check_range(least: int, most: int | None) -> None:
    """Raises BadInput: no count satisfies the range, or every count does. `most` None: without an upper bound."""
    if most is not None and most < least:
        raise BadInput(f"'most' is {most}, below 'least', {least}: no answer can satisfy both")
    if most is None and least == 0:
        raise BadInput("neither 'least' nor 'most' asks for anything; set one of them")


def within(count: int, least: int, most: int | None) -> bool:
    """Whether the count is in the range."""
    return least <= count and (most is None or count <= most)


def is_decided(count: int, least: int, most: int | None) -> bool:
    """Whether every larger count gives the same score and the same sentence: an answer may stop here."""
    return least <= count if most is None else count > most


def amount(count: int, most: int | None) -> str:
    """The count in words; above the range only "more", since an answer may have been stopped there."""
    return str(count) if most is None or count <= most else "more"


def described(least: int, most: int | None, noun: str) -> str:
    """The range in words."""
    if most is None:
        return f"at least {least} {plural(least, noun)}"
    if least == 0:
        return f"at most {most} {plural(most, noun)}"
    if least == most:
        return f"exactly {most} {plural(most, noun)}"
    return f"between {least} and {most} {plural(most, noun)}"


def plural(count: int, noun: str) -> str:
    return noun if count == 1 else noun + "s"
