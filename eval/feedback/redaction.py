"""What is taken out of texts before they are kept: by patterns here, or by a function of the user's own."""

import re
import sys
from collections.abc import Callable
from importlib import import_module

from agent.errors import BadInput

Redact = Callable[[str], str]
BUILT_IN = "built-in"
# It begins where no such sign stands before: tried from every sign of a long word, it takes the square of its length.
EMAIL = r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
KEYS = (
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    r"\b(?:sk|pk|rk)[-_][A-Za-z0-9_-]{16,}",  # OpenAI, Anthropic, Stripe
    r"\b(?:gh[pousr]_|github_pat_|glpat-|hf_|npm_|pypi-|xox[abpors]-)[A-Za-z0-9_-]{16,}",
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    r"\bAIza[A-Za-z0-9_-]{30,}",
    r"\beyJ[A-Za-z0-9_-]{8,1000}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?",  # JSON web tokens
    r"(?<=Bearer )[A-Za-z0-9._~+/=-]{16,}",
    r"\b(?=[0-9a-f]*[a-f])(?=[0-9a-f]*[0-9])[0-9a-f]{32,}\b",
)
PHONES = (
    r"(?<![\w+])\+\d(?:[ ()./-]{0,2}\d){7,14}(?!\d)",  # +49 30 1234567
    r"(?<![\w(])\(\d{2,5}\)[ -]?\d{3,4}[ -]?\d{3,5}(?!\d)",  # (555) 123-4567
    r"(?<![\w.-])\d{3}[-. ]\d{3}[-. ]\d{4}(?![\w-])",  # 555-123-4567
    r"(?<![\w.,-])(?<!\d )0\d{1,4}[ /-]\d{3,}(?:[ -]\d{2,})*(?!\w)",  # 030 1234567
)
PATTERNS = (
    (re.compile("|".join(KEYS), re.DOTALL), "[key]"),
    (re.compile(EMAIL), "[e-mail]"),
    (re.compile("|".join(PHONES)), "[phone]"),
)


def without_keys(text: str) -> str:
    """The text with keys replaced, as far as their form tells them."""
    pattern, name = PATTERNS[0]
    return pattern.sub(name, text)


def redact(text: str) -> str:
    """The text with e-mail addresses, phone numbers and keys replaced, as far as their form tells them.

    It knows no names, no postal addresses, no account numbers, and no phone number that is written like any number.
    """
    for pattern, name in PATTERNS:
        text = pattern.sub(name, text)
    return text


def redaction(named: str) -> Redact:
    """The built-in redaction, or a function of the user's own as `module:function`, from text to text.

    Raises:
        BadInput: there is no such function, or it gives no text back.
    """
    if named == BUILT_IN:
        return redact
    module, colon, function = named.partition(":")
    if not colon:
        raise BadInput(f"--redact {named}: name a function as module:function, or leave it out for the built-in one")
    sys.path.append("")  # a file beside the user; last, so that it stands before nothing
    try:
        found = getattr(import_module(module), function, None)
    except ImportError as error:
        raise BadInput(f"--redact {named}: {error}") from error
    finally:
        sys.path.remove("")
    if not callable(found):
        raise BadInput(f"--redact {named}: {module} has no function {function}")

    def checked(text: str) -> str:
        result = found(text)
        if not isinstance(result, str):
            raise BadInput(f"--redact {named}: it gave {type(result).__name__} in place of a text")
        return result

    return checked
