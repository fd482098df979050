"""Plain words without an LLM: a short sentence becomes the command that it means, or none.

Only sentences that are understood from end to end count. Half an understanding could train a model that nobody asked
for; what is not understood is asked back, with the nearest command.
"""

import re

from graphs.conversation.commands import ALIASES
from graphs.conversation.lexicon import COUNTS, NO, PHRASES

# Words around a wish that change nothing about it.
BEFORE = re.compile(
    r"^(?:(?:please|now|then|and|so|well|hey|hi|hello|just|maybe just|let'?s|let us|can you|could you|would you|"
    r"will you|i would like (?:you )?to|i'd like (?:you )?to|i want you to|i want to|we should|you should|go and)"
    r"\b[, ]*)+",
    re.I,
)
AFTER = re.compile(r"(?:[, ]*\b(?:please|now|then|thanks|thank you|for me|instead|again|first))+$", re.I)
# A question wants an answer, and never an act. "What about training?" is no question.
QUESTION = re.compile(
    r"(?:and |so |but |then )*(?!(?:how|what) about\b|what if\b|why (?:not|don't)\b)"
    r"(?:why|what|how|which|who|whom|whose|when|where|was|were|is|are|did|does|do you|has|have|had)\b.*\?\s*",
    re.I | re.S,
)
# Commands that may follow a "no": what is to be done instead.
INSTEAD = ("/train", "/edit", "/rollback", "/undo", "/finish", "/run", "/stop", "/why")


def understood(text: str) -> str | None:
    """The command line that these words mean, such as "/train epochs=2"; None where they are not understood whole.

    Args:
        text: what a user said. What begins with a slash is a command already, and stays as it is.
    """
    if text.lstrip().startswith("/"):
        name, space, rest = text.strip().partition(" ")
        return f"{ALIASES.get(name.lower(), name)}{space}{rest}"
    whole = " ".join(text.replace("’", "'").split())
    said = whole.rstrip(" .!")
    for form in (whole, said, AFTER.sub("", BEFORE.sub("", said)).strip(" ,")):
        for pattern, template in PHRASES:
            if match := pattern.fullmatch(form):
                return None if _is_no_reward(match.groupdict().get("target")) else _filled(template, match)
    return _refused(said)


def asks(text: str) -> bool:
    """Whether this is a question about the run, so that whatever an LLM makes of it, nothing is done."""
    return bool(QUESTION.fullmatch(BEFORE.sub("", text.strip())))


def _refused(said: str) -> str | None:
    """ "No, too slow" is a no with its reason; "no, train instead" is the training."""
    match = re.fullmatch(rf"(?:{NO})(?:\s*[,;:.-]\s*|\s+(?=because|since|it|that|this|i ))(.+)", said, re.I)
    if match is None:
        return None
    instead = understood(match[1])
    return instead if instead and instead.startswith(INSTEAD) else f"/reject {match[1]}"


def _filled(template: str, match: re.Match[str]) -> str:
    """A template with what its groups matched; a word of it whose group matched nothing is left out.

    Groups are named by what they hold: a number in words becomes digits, a share in per cent a reward.
    """
    words = []
    for word in template.split():
        names = re.findall(r"\{(\w+)\}", word)
        values = {name: match.groupdict().get(name) for name in names}
        if all(values.values()):
            words.append(word.format(**{name: _value(name, value or "") for name, value in values.items()}))
    return " ".join(words)


def _is_no_reward(target: str | None) -> bool:
    """A number that is no share and not in per cent: "I need 4" may mean rounds, examples or anything."""
    return target is not None and not target.endswith("%") and float(target) > 1


def _value(name: str, text: str) -> str:
    if name in ("count", "other", "epochs", "rounds"):
        return str(COUNTS.get(text.lower(), text))
    if name == "target":
        value = float(text.rstrip(" %"))
        return f"{value / 100 if text.endswith('%') else value:g}"
    plain = text.strip().strip("\"“”'").strip()
    if name == "wish":  # what it is told to do, as a sentence of its prompt
        return f"{plain[:1].upper()}{plain[1:]}{'' if plain.endswith(('.', '!', '?')) else '.'}"
    return text.lower() if name == "rows" else plain
