"""A task's scorers taken together: the reward of an output, and the words for what is wanted."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TypeVar

from agent.errors import BadInput
from agent.records import Example, ExampleScore
from agent.records import digest as content_hash
from agent.scoring import ContentScorer, StyleScorer
from eval.content import content_scorer, settled
from eval.style import style_scorer

WANTED = {
    "exact": "the answer itself",
    "contains": "the answer's words",
    "number": "the right number",
    "choice": "the right option letter",
    "f1": "the answer's words, as many as possible",
}

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # what decoders put for a character whose last bytes are still to come

Setting = TypeVar("Setting", ContentScorer, StyleScorer)
Built = TypeVar("Built")


class BadScorer(BadInput):
    """A scorer that cannot work; `keys` is its place in the task file, such as ("style", 0)."""

    def __init__(self, keys: tuple[str, int], fault: BadInput) -> None:
        super().__init__(f"'{keys[0]}.{keys[1]}': {fault}")
        self.keys = keys


class TaskScorers:
    """Satisfies `agent.protocols.Scorers`. Raises BadScorer for settings that do not compile or hold together."""

    def __init__(self, content: Sequence[ContentScorer], style: Sequence[StyleScorer] = ()) -> None:
        self._content = _build("content", content, content_scorer)
        self._style = _build("style", style, style_scorer)
        self._settings = tuple(content)
        parts = {"content": content, "style": style}
        self.digest = content_hash({key: [one.model_dump(mode="json") for one in part] for key, part in parts.items()})

    def score(self, example: Example, output: str) -> ExampleScore:
        """Means over the content and over the style scorers, both in [0, 1]; style is 1.0 where nothing is asked."""
        faults = [style.explain(output) for style in self._style]
        return ExampleScore(
            example=example.name,
            output=output,
            content=fmean(score(output, example.answer) for score in self._content),
            style=fmean(not fault for fault in faults) if faults else 1.0,
            faults=tuple(fault for fault in faults if fault),
        )

    def faults(self, output: str) -> tuple[str, ...]:
        """One sentence per style scorer that the output fails."""
        return tuple(fault for style in self._style if (fault := style.explain(output)))

    def settled(self, example: Example, text: str) -> bool:
        """Whether score, faults and instructions are the same for every text that goes on from this one.

        Its last word may be cut, and is left out; what is judged is followed by white space.
        """
        parts = text.rsplit(maxsplit=1)
        if len(parts) < 2 or text.endswith(INCOMPLETE):
            return False
        content = all(settled(settings, parts[0], example.answer) for settings in self._settings)
        return content and all(style.settled(parts[0]) for style in self._style)

    def instructions(self, output: str | None = None) -> tuple[str, ...]:
        """What to tell the model so that the style holds: for the scorers this output fails, or for all."""
        return tuple(style.instruct() for style in self._style if output is None or not style.score(output))

    def show(self, answer: str) -> str:
        """The answer in the wanted form: every style scorer's form in the order of the task file."""
        for style in self._style:
            answer = style.show(answer)
        return answer

    def passes(self, output: str, example: Example) -> bool:
        """Whether content and style are both full marks."""
        return self.score(example, output).reward == 1.0

    def describe(self) -> str:
        """One line for people about what is wanted."""
        content = " and ".join(WANTED[settings.kind] for settings in self._settings)
        return " ".join([f"Wanted: {content}.", *self.instructions()])


def _build(part: str, settings: Sequence[Setting], build: Callable[[Setting], Built]) -> tuple[Built, ...]:
    """The scorers of one part of the task file; an error gets the scorer's place put in front."""
    built = []
    for place, one in enumerate(settings):
        try:
            built.append(build(one))
        except BadInput as error:
            raise BadScorer((part, place), error) from None
    return tuple(built)
