"""What an editor is shown and what it proposes."""

from agent.records.base import Record
from agent.records.examples import Prompt, TextPart


class Critique(Record):
    """What an editor's LLM said of one failing train row: the textual gradient of a part of the prompt."""

    part: TextPart
    example: str
    text: str


class Edit(Record):
    """A changed prompt, and a note that says what was changed."""

    prompt: Prompt
    note: str


class Edits(Record):
    """What an editor proposes, the critiques behind it, and remarks on what failed."""

    edits: tuple[Edit, ...] = ()
    critiques: tuple[Critique, ...] = ()
    remarks: tuple[str, ...] = ()


class Rewrite(Record):
    """A hard train question in other words, with the model's answer to it that passed the scorers.

    `source` is the content hash of the example that it replaces, `prompt` the id of the prompt it was answered under.
    """

    source: str
    question: str
    answer: str
    prompt: str
