"""Where a row is scored: all scorers of a task on an output, and the instructions for what is wanted."""

from collections.abc import Callable, Sequence
from functools import cache
from statistics import fmean
from typing import TypeVar

from agent import extensions
from agent.config.scorers import ContentScorer, Judge, Rated, RewardModel, StyleScorer
from agent.errors import BadInput
from agent.protocols import Rater, Rating
from agent.reasoning import may_think, spoken
from agent.records.base import digest as content_hash
from agent.records.evaluation import ExampleScore
from agent.records.examples import Example
from eval.scorers.content import Score, content_scorer, score_is_final
from eval.scorers.patterns import TooSlow
from eval.scorers.style import AnyStyle, JudgedStyle, style_scorer

WANTED = {
    "exact": "the answer itself",
    "contains": "the answer's words",
    "number": "the right number",
    "choice": "the right option letter",
    "f1": "the answer's words, as many as possible",
    "json_fields": "the right value under every key",
    "reward_model": "what a reward model prefers",
}

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # what decoders put for a character whose last bytes are still to come

Setting = TypeVar("Setting", ContentScorer, StyleScorer)
Built = TypeVar("Built")
Answered = Sequence[tuple[Example, str]]


class BadScorer(BadInput):
    """A scorer that cannot work; `keys` is its place in the task file, such as ("style", 0)."""

    def __init__(self, keys: tuple[str, int], fault: BadInput) -> None:
        super().__init__(f"'{keys[0]}.{keys[1]}': {fault}")
        self.keys = keys


def no_rater(settings: Rated) -> Rater:
    """Refuses to rate: for code that reads a task and scores no answers."""
    raise BadInput(f"a scorer of `kind: {settings.kind}` cannot be asked here; it can in `nesylora run` and `eval`")


class TaskScorers:
    """Satisfies `agent.protocols.Scorers`. Raises BadScorer for settings that do not compile or hold together.

    What an output thinks before it answers counts neither for content nor for style, and a judge does not see it.

    Args:
        rater: makes the judge or reward model of these settings; called when first needed, once for equal settings.
        judge: which LLM the judge is, as plain data. It is part of the digest: another judge gives other scores.
    """

    def __init__(
        self,
        content: Sequence[ContentScorer],
        style: Sequence[StyleScorer] = (),
        rater: Callable[[Rated], Rater] = no_rater,
        judge: object = None,
    ) -> None:
        self._content = _build("content", content, content_scorer)
        self._style = _build("style", style, style_scorer)
        self._settings = tuple(content)
        self._rater = cache(rater)
        self.given_up = ""  # the sentence on a regular expression that found no end, once there was one
        parts: dict[str, object] = {
            "content": [settings.model_dump(mode="json") for settings in content],
            "style": [settings.model_dump(mode="json") for settings in style],
        }
        if judge is not None:
            parts["judge"] = judge
        if versions := _registered_versions(content, style):
            parts["registered"] = versions
        self.digest = content_hash(parts)

    def score(self, example: Example, output: str) -> ExampleScore:
        """The score of one output; see `score_all`."""
        return self.score_all([(example, output)])[0]

    def score_all(self, answered: Answered) -> list[ExampleScore]:
        """Scores in order: means over the content and over the style scorers; style is 1.0 where nothing is asked.

        Each judge and reward model is asked once, for all rows. A judge of style sees references in the wanted form.

        Raises:
            LlmUnavailable: a judge did not answer; then nothing is scored.
        """
        answers = [
            (example.model_copy(update={"answer": spoken(example.answer)}), spoken(output))
            for example, output in answered
        ]
        content = [self._content_ratings(scorer, answers) for scorer in self._content]
        style = [self._style_ratings(scorer, answers) for scorer in self._style]
        return [
            _score(example, output, [part[place] for part in content], [part[place] for part in style])
            for place, (example, output) in enumerate(answered)
        ]

    def _content_ratings(self, scorer: Score | Rated, answered: Answered) -> list[Rating]:
        if isinstance(scorer, Judge | RewardModel):
            return self._rater(scorer).rate(answered)
        return [self._rule(scorer, output, example.answer) for example, output in answered]

    def _style_ratings(self, scorer: AnyStyle, answered: Answered) -> list[Rating]:
        if isinstance(scorer, JudgedStyle):
            formed = [
                (example.model_copy(update={"answer": self.show(example.answer)}), output)
                for example, output in answered
            ]
            return self._rater(scorer.settings).rate(formed)
        faults = [self._fault(scorer, output) for _, output in answered]
        return [Rating(float(not fault), fault) for fault in faults]

    def faults(self, output: str) -> tuple[str, ...]:
        """One sentence per style rule that the output fails. No judge is asked."""
        answer = spoken(output)
        return tuple(fault for style in self._style if (fault := self._fault(style, answer)))

    def _fault(self, style: AnyStyle, answer: str) -> str:
        try:
            return style.explain(answer)
        except TooSlow as error:
            return self._given_up(error)

    def _rule(self, rule: Score, output: str, answer: str) -> Rating:
        try:
            return Rating(rule(output, answer))
        except TooSlow as error:
            return Rating(0.0, self._given_up(error))

    def _given_up(self, error: TooSlow) -> str:
        """The sentence for the answer's faults: the run goes on."""
        self.given_up = str(error)
        return self.given_up

    def may_stop(self, example: Example, text: str) -> bool:
        """Whether score, faults and instructions are the same for every answer that begins with this text.

        Satisfies `agent.protocols.StopEarly`. Never where a judge or a reward model scores, since they read the whole
        answer, nor where the text has thoughts. The last word of the text may be cut, and is not looked at.
        """
        parts = text.rsplit(maxsplit=1)
        if len(parts) < 2 or text.endswith(INCOMPLETE) or may_think(parts[0]):
            return False
        content = all(score_is_final(settings, parts[0], example.answer) for settings in self._settings)
        return content and all(style.is_final(parts[0]) for style in self._style)

    def instructions(self, output: str | None = None) -> tuple[str, ...]:
        """Instructions for the wanted style, one sentence per scorer.

        Args:
            output: only for the rules that it fails, and for every judge (no judge is asked, so it may fail them);
                None: for all.
        """
        answer = None if output is None else spoken(output)
        return tuple(
            style.instruct() for style in self._style if answer is None or self._needs_instruction(style, answer)
        )

    def _needs_instruction(self, style: AnyStyle, answer: str) -> bool:
        try:
            return style.needs_instruction(answer)
        except TooSlow:
            return True

    def show(self, answer: str) -> str:
        """The answer in the wanted form: every style scorer's form in the order of the task file.

        Thoughts before it stay as they are.
        """
        shown = bare = spoken(answer)
        for style in self._style:
            shown = style.show(shown)
        if bare == answer:
            return shown
        return answer.removesuffix(bare) + shown if answer.endswith(bare) else answer

    def full_marks(self, output: str, example: Example) -> bool:
        """Whether content and style both get full marks, as far as rules can score them.

        Called for every row when a task is read, and by editors, so no judge and no reward model is asked: what only
        they can score counts as full marks. That is right for references in the wanted form; use `score_all` for a
        model's own answers.
        """
        return self.ruled(output, example) == 1.0 and not self.faults(output)

    def ruled(self, output: str, example: Example) -> float:
        """Mean over the content rules, in [0, 1]; 1.0 where there are none. No judge is asked."""
        rules = [scorer for scorer in self._content if not isinstance(scorer, Judge | RewardModel)]
        answer, reference = spoken(output), spoken(example.answer)
        return fmean(self._rule(rule, answer, reference).score for rule in rules) if rules else 1.0

    def describe(self) -> str:
        """One line for people about what is wanted."""
        content = " and ".join(map(_wanted, self._settings))
        return " ".join(" ".join([f"Wanted: {content}.", *self.instructions()]).split())


def _wanted(settings: ContentScorer) -> str:
    if isinstance(settings, Judge):
        return f'what a judge finds by "{settings.rubric}"'
    registered = extensions.scorers.get(settings.kind)
    return registered.wanted if registered else WANTED[settings.kind]


def _registered_versions(content: Sequence[ContentScorer], style: Sequence[StyleScorer]) -> dict[str, str]:
    """The versions of registered scorers, by part and kind: with another version, scores do not compare."""
    found = [("content", settings.kind, extensions.scorers.get(settings.kind)) for settings in content]
    found_style = [("style", settings.kind, extensions.styles.get(settings.kind)) for settings in style]
    return {f"{part} {kind}": scorer.version for part, kind, scorer in (*found, *found_style) if scorer}


def _score(example: Example, output: str, content: Sequence[Rating], style: Sequence[Rating]) -> ExampleScore:
    """The means, and every reason that was given: a fault or a remark where it took something away, else praise."""
    return ExampleScore(
        example=example.name,
        output=output,
        content=fmean(rating.score for rating in content),
        style=fmean(rating.score for rating in style) if style else 1.0,
        faults=tuple(rating.reason for rating in style if rating.score < 1),
        remarks=tuple(rating.reason for rating in content if rating.score < 1 and rating.reason),
        praise=tuple(rating.reason for rating in (*content, *style) if rating.score == 1 and rating.reason),
    )


def _build(part: str, settings: Sequence[Setting], build: Callable[[Setting], Built]) -> tuple[Built, ...]:
    """The scorers of one part of the task file; an error gets the scorer's place put in front."""
    built = []
    for place, scorer in enumerate(settings):
        try:
            built.append(build(scorer))
        except BadInput as error:
            raise BadScorer((part, place), error) from None
    return tuple(built)
