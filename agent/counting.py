"""How many of something, in words."""


def plural(count: float, noun: str) -> str:
    """Such as "1 round", "2 rounds", "1,200 rows", "7.5 minutes"."""
    number = f"{count:,}" if isinstance(count, int) else f"{count:g}"
    return f"{number} {noun}" if count == 1 else f"{number} {noun}s"
