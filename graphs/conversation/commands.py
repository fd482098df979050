"""The commands of a conversation: what there is, what each takes, and which one a slip of the keyboard meant."""

import re
from difflib import get_close_matches
from typing import NamedTuple

from agent.errors import BadInput
from graphs.conversation.lexicon import COUNTS


class Command(NamedTuple):
    """What a user can ask for, and what may follow its name."""

    name: str
    takes: str
    about: str

    @property
    def acts(self) -> bool:
        """Whether it changes the run, so that an open question no longer stands after it."""
        return self.name not in LOOKING


COMMANDS = (
    Command("/plan", "", "what would be done next, why, and what it costs"),
    Command("/approve", "", "do it (or say: yes)"),
    Command("/reject", "WHY", "not that: plan again without it (or say: no, too slow)"),
    Command("/edit", "TEXT", "rewrite the prompt next; TEXT: your own words for the system text"),
    Command("/train", "epochs=4 bare=true", "train next; rest as the rules have it; bare: give few-shot examples up"),
    Command("/run", "N", "up to N rounds: edits go through, training asks first; +N: N more"),
    Command("/undo", "", "back to the pair before the last change that was kept: a round of its own"),
    Command("/rollback", "N", "back to the pair after round N (0: the baseline)"),
    Command("/set", "target=0.9 rounds=+2", "target and limits (rounds, minutes, usd); reopens a finished run"),
    Command("/stop", "", "break off the step under way; nothing of it is kept (or press Ctrl-C)"),
    Command("/pause", "", "stop after the step under way"),
    Command("/go", "", "go on after a pause"),
    Command("/why", "N", "the reasons and numbers behind round N, or the last one"),
    Command("/diff", "", "what the best prompt says that the seed prompt did not"),
    Command("/prompt", "", "the prompt as it is now"),
    Command("/try", "TEXT", "ask the base, the current and the best pair something"),
    Command("/status", "", "reward, budget, cost, and what is waited for"),
    Command("/failures", "", "what the failing rows lack, and some of them"),
    Command("/compare", "A B", "the pairs after two rounds, on the same rows"),
    Command("/search", "TEXT", "prompts that earlier runs kept on near tasks"),
    Command("/finish", "", "end here: open the test rows and write the report"),
    Command("/help", "COMMAND", "this list; of a command, the settings that it takes"),
    Command("/quit", "", "leave; go on later with: nesylora chat RUN"),
)  # fmt: skip
BY_NAME = {command.name: command for command in COMMANDS}
LOOKING = frozenset({
    "/plan", "/why", "/diff", "/prompt", "/try", "/status", "/failures", "/compare", "/search", "/help", "/quit",
})  # fmt: skip
ALIASES = {
    "/exit": "/quit", "/extend": "/set", "/yes": "/approve", "/no": "/reject", "/cancel": "/stop", "/y": "/approve",
}  # fmt: skip
# Of the commands that cannot be given alone.
EXAMPLES = {"/rollback": "1", "/set": "target=0.9", "/try": "Who is the mayor?", "/compare": "0 2"}
WIDTH = max(len(f"{command.name} {command.takes}") for command in COMMANDS)
HELP = "\n".join(f"{f'{command.name} {command.takes}'.strip():<{WIDTH}}  {command.about}" for command in COMMANDS)
# A wish of how answers should be, and what another sentence is probably about: the first that fits.
WISH = re.compile(
    r"(?:i (?:want|need|would like) (?:it|the model) to|(?:it|the answers?|the model) (?:should|must)(?: be)?|make it|"
    r"get it to|i want) (.+)",
    re.I,
)
ABOUT = (
    (r"\b(train|tun(e|ing)|epochs?|weights?|lora|learn)", "/train"),
    (r"\b(back|undo|revert|before)\b", "/undo"),
    (r"\b(prompt|rewrite|words?|instructions?|answers? (should|must)|it (should|must)|make it)\b", "/edit"),
    (r"\b(test rows|finish|end)\b", "/finish"),
    (r"\b(budget|target|goal|rounds?|minutes|reward of)\b", "/status"),
)


def parsed(line: str) -> tuple[Command, str]:
    """The command that a line begins with, and what follows it.

    Raises:
        BadInput: there is no such command, or it takes nothing after it, or lacks what it takes.
    """
    name, _, rest = line.strip().partition(" ")
    command, rest = named(name), rest.strip()
    if rest and not command.takes:
        raise BadInput(f"{command.name} takes nothing after it, and nothing was done.")
    if command.name in EXAMPLES and not rest:
        raise BadInput(f"{command.name} takes {command.takes}, as in: {command.name} {EXAMPLES[command.name]}")
    return command, rest


def named(name: str) -> Command:
    """The command of this name, or of one that means the same. Raises BadInput where there is none."""
    name = name.lower()
    command = BY_NAME.get(ALIASES.get(name, name))
    if command is None:
        near = get_close_matches(name, BY_NAME, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else "/help lists them, and /try TEXT asks the model."
        raise BadInput(f"There is no command {name}; {hint}")
    return command


def nearest(text: str) -> str | None:
    """The command line that words which were not understood may have meant, to be asked back; None: no idea.

    A wish that begins with "it should" is taken as an instruction; a question, as one for the model.
    """
    said = " ".join(text.split())
    name = said.partition(" ")[0]
    near = get_close_matches(f"/{name.lower().lstrip('/')}", BY_NAME, n=1, cutoff=0.8) if len(name) > 3 else []
    if near:
        rest, takes = said.partition(" ")[2], BY_NAME[near[0]].takes
        return f"{near[0]} {rest}".strip() if _fits(rest, takes) else near[0]
    if wish := WISH.fullmatch(said.rstrip(".")):
        return f"/edit {wish[1][0].upper()}{wish[1][1:]}."
    if said.endswith("?") and len(said.split()) > 2:
        return f"/try {said}"
    return next((command for pattern, command in ABOUT if re.search(pattern, said, re.I)), None)


def _fits(rest: str, takes: str) -> bool:
    """Whether a command that takes this can be given with the rest of what was said."""
    if "=" in takes:
        return all("=" in part for part in rest.split())
    return takes in ("TEXT", "WHY") or bool(takes and re.search(r"\d", rest))


def settings(text: str, example: str) -> dict[str, object]:
    """`name=value` pairs; a value with commas is a list, null is None. Raises BadInput, with an example, where it is
    none."""
    pairs = [part.partition("=") for part in text.split()]
    if not all(name and equals and value for name, equals, value in pairs):
        raise BadInput(f"Settings are written as in: {example}. Nothing was done.")
    return {name: _value(name, value) for name, _, value in pairs}


def _value(name: str, value: str) -> str | list[str] | None:
    if "," in value or name == "parts":
        return value.split(",")
    return None if value == "null" else value


def count(text: str, command: str, least: int = 0) -> int:
    """A number in digits or words. Raises BadInput where it is none, or less than `least`."""
    value = COUNTS.get(text.lower(), int(text) if text.isdecimal() else -1)
    if value < least:
        raise BadInput(f"{command} takes a number from {least} on, as in: {command} 2. Nothing was done.")
    return value
