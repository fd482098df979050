"""`content:` and `style:` in a task.yaml: the scorers that come with the package, and those that users register."""

from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    Field,
    GetCoreSchemaHandler,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from agent import extensions
from agent.config.base import CustomScorer, CustomStyle, Settings, StyleSettings
from agent.errors import BadInput
from agent.registry import Registry


class Exact(Settings):
    """The whole output is the answer (case and outer white space aside; of JSON objects, order and spacing, too)."""

    kind: Literal["exact"]
    extract: str | None = Field(None, description="regular expression; its first group (or match) is compared")


class Contains(Settings):
    """The answer stands in the output as whole words (where words are written without spaces, anywhere)."""

    kind: Literal["contains"]


class Number(Settings):
    """The first number after `marker` (or the last of the whole output) equals the one in the answer.

    Compared exactly: decimals, fractions (3/4, 1 1/2, \\frac{3}{4}), roots and multiples of pi (2\\sqrt{3}, π/2).
    50 % is as good as 50 or 0.5.
    """

    kind: Literal["number"]
    marker: str = Field("####", description="the result follows it")


class Choice(Settings):
    """The option letter, such as (B), in the output equals the one in the answer; "answer: b" is as good."""

    kind: Literal["choice"]
    letters: str = Field("ABCDE", description="the options there are")


class TokenF1(Settings):
    """Word overlap of output and answer, as F1 in [0, 1]."""

    kind: Literal["f1"]


class JsonFields(Settings):
    """Answers are JSON objects: the share of keys whose value in the output is the answer's (case of text aside)."""

    kind: Literal["json_fields"]
    keys: tuple[str, ...] = Field((), description="those that count; all of the answer's, if none are named")


class Judge(StyleSettings):
    """An external LLM grades the output by a rubric, from 1 to `scale`; with `compare`, against the reference answer.

    Who compares is asked twice, with the two answers swapped. Its instruction, where `say` is left out, is the rubric.
    """

    kind: Literal["judge"]
    rubric: str = Field(description="what the judge is to look for")
    scale: int = Field(5, ge=2, le=10, description="the best grade")
    compare: bool = Field(False, description="whether the output wins, ties or loses against the reference")

    @field_validator("rubric")
    @classmethod
    def says_something(cls, rubric: str) -> str:
        if not rubric.strip():
            raise ValueError("the rubric is empty; say what the judge is to look for")
        return rubric.strip()

    @model_validator(mode="after")
    def has_a_scale_only_where_it_grades(self) -> "Judge":
        if self.compare and self.scale != Judge.model_fields["scale"].default:
            raise ValueError("`scale` has no use beside `compare: true`, where an answer wins, ties or loses")
        return self


class RewardModel(Settings):
    """A reward model (AutoModelForSequenceClassification with one logit) reads question and output.

    A logit of `low` or less is 0, of `high` or more 1.
    """

    kind: Literal["reward_model"]
    model: str = Field(min_length=1, description="hub name or local folder (./… is relative to the task)")
    low: float = Field(-5.0, allow_inf_nan=False, description="logit of no reward")
    high: float = Field(5.0, allow_inf_nan=False, description="logit of full reward")
    max_tokens: int = Field(1024, ge=16, description="of question and output together; longer ones are cut")
    batch_size: int = Field(16, ge=1, description="rows that are read at a time")

    @model_validator(mode="after")
    def has_room_between_its_bounds(self) -> "RewardModel":
        if self.low >= self.high:
            raise ValueError(f"`low`, {self.low:g}, must be below `high`, {self.high:g}")
        return self


Rated = Judge | RewardModel  # what no rule can score

BuiltInContent = Exact | Contains | Number | Choice | TokenF1 | JsonFields | Rated


class StartsWith(StyleSettings):
    """The output starts with this text."""

    kind: Literal["starts_with"]
    text: str = Field(description="the beginning; white space before it does not count")


class Matches(StyleSettings):
    """A regular expression that must be found in the output (anchor it with ^ and $ if the whole should match).

    It has a second to be found.
    """

    kind: Literal["regex"]
    pattern: str = Field(description="in the syntax of the package `regex`, a superset of Python's")


class JsonForm(StyleSettings):
    """The output is a JSON object with these keys, or one that satisfies a JSON schema."""

    kind: Literal["json"]
    keys: tuple[str, ...] = Field((), description="keys that the object must have")
    json_schema: dict[str, Any] | None = Field(None, alias="schema", description="a JSON schema (2020-12)")


class Words(StyleSettings):
    """Between `least` and `most` words."""

    kind: Literal["words"]
    least: int = Field(0, ge=0, description="words at least")
    most: int | None = Field(None, ge=1, description="words at most; null: no limit")


class Forbid(StyleSettings):
    """None of these words or phrases may appear."""

    kind: Literal["forbid"]
    words: tuple[str, ...] = Field(min_length=1, description="whole words or phrases, in any case")


class Bullets(StyleSettings):
    """Between `least` and `most` lines that begin with - or *."""

    kind: Literal["bullets"]
    least: int = Field(1, ge=0, description="lines at least")
    most: int | None = Field(None, ge=1, description="lines at most; null: no limit")


BuiltInStyle = StartsWith | Matches | JsonForm | Words | Forbid | Bullets | Judge


@dataclass(frozen=True)
class OrRegistered:
    """Pydantic metadata: one of the `built_in` kinds, or a kind that is registered. The JSON schema has the former.

    Args:
        registry: has the settings classes of the kinds that are not built in.
        custom: what those classes have in common.
    """

    built_in: Any  # a union of settings classes, which is no type to mypy
    registry: Registry[extensions.Scorer] | Registry[extensions.Style]
    custom: type[Settings]

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        inner = handler.generate_schema(Annotated[self.built_in, Field(discriminator="kind")])
        dump = core_schema.wrap_serializer_function_ser_schema(self._dump, info_arg=True, schema=inner)
        return core_schema.no_info_wrap_validator_function(self._validate, inner, serialization=dump)

    def _validate(self, value: object, built_in: ValidatorFunctionWrapHandler) -> object:
        kind = value.get("kind") if isinstance(value, dict) else None
        if isinstance(value, self.custom) or not isinstance(kind, str):
            return value if isinstance(value, self.custom) else built_in(value)
        try:
            found = self.registry.get(kind)
        except BadInput as error:
            raise ValueError(str(error)) from error
        return _tagged(found.settings, self.built_in).validate_python(value) if found else built_in(value)

    def _dump(self, value: Any, built_in: SerializerFunctionWrapHandler, info: SerializationInfo) -> Any:
        if isinstance(value, self.custom):
            return value.model_dump(mode=info.mode, by_alias=info.by_alias)
        return built_in(value)


@cache
def _tagged(settings: type[Settings], built_in: Any) -> TypeAdapter[Settings]:
    """Validates as a member of a union, so that errors are located as those of built-in kinds are."""
    union: Any = Annotated[settings | get_args(built_in)[0], Field(discriminator="kind")]  # known only at run time
    return TypeAdapter(union)


ContentScorer = Annotated[BuiltInContent | CustomScorer, OrRegistered(BuiltInContent, extensions.scorers, CustomScorer)]
StyleScorer = Annotated[BuiltInStyle | CustomStyle, OrRegistered(BuiltInStyle, extensions.styles, CustomStyle)]


def is_content_kind(name: str) -> bool:
    """Whether a content scorer of this kind comes with the package."""
    return name in _kinds(BuiltInContent)


def is_style_kind(name: str) -> bool:
    """Whether a style scorer of this kind comes with the package."""
    return name in _kinds(BuiltInStyle)


def _kinds(union: Any) -> set[str]:
    return {get_args(member.model_fields["kind"].annotation)[0] for member in get_args(union)}
