"""OpenAI's requests, read strictly: what would change an answer and is not carried out is refused."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from agent.records.served import ServedMessage
from tools.continuous.row import Sampling
from ui.serve.faults import Fault, not_supported

IGNORED = (  # fields that change no answer
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "parallel_tool_calls",
)  # fmt: skip
NEUTRAL: dict[str, tuple[tuple[object, ...], str]] = {  # values that ask for nothing, and why others are refused
    "n": ((1,), "one answer is given to a request; send the request again for another"),
    "best_of": ((1,), "one answer is given to a request"),
    "frequency_penalty": ((0,), "penalties are those of the model's generation_config, as the run measured them"),
    "presence_penalty": ((0,), "penalties are those of the model's generation_config, as the run measured them"),
    "logit_bias": (({},), "tokens are not biased"),
    "tools": (([],), "the model was not adapted to call tools"),
    "tool_choice": (("none", "auto"), "the model was not adapted to call tools"),
    "functions": (([],), "the model was not adapted to call functions"),
    "function_call": (("none", "auto"), "the model was not adapted to call functions"),
    "response_format": (({"type": "text"},), "answers are not forced into a form; the task's scorers say which it has"),
    "reasoning_effort": ((), "the model has no such setting"),
    "verbosity": (("medium",), "the model has no such setting"),
    "modalities": ((["text"],), "answers are text"),
    "audio": ((), "answers are text"),
    "prediction": ((), "answers are not predicted"),
    "web_search_options": ((), "nothing is searched"),
    "echo": ((False,), "the prompt is not given back"),
    "suffix": (("",), "texts are continued at their end only"),
}
STOPS = 4
LONGEST_STOP = 1000  # characters
COLDEST = 1e-4  # temperatures below it are greedy: dividing by them leaves no numbers
TOP_LOGPROBS = 20


class Sent(BaseModel):
    """A part of a request."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TextPart(Sent):
    type: Literal["text"]
    text: str


def _text(content: object) -> object:
    """Content in parts as one text; pydantic says what is wrong with any other."""
    if not isinstance(content, list):
        return content
    return "".join(TextPart.model_validate(part).text for part in content)


class SentMessage(Sent):
    """What clients send back of an answer (refusal, annotations, empty tool_calls) is left out."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_text)]
    tool_calls: Annotated[list[Any] | None, Field(max_length=0)] = None


class StreamOptions(Sent):
    include_usage: bool = False
    include_obfuscation: bool = False


class Common(Sent):
    """Fields of both kinds of request."""

    model: str
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """Raises Fault: they are too many, too long, or empty."""
        stops = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        if len(stops) > STOPS:
            raise Fault(400, f"stop: {len(stops)} texts were given, {STOPS} are taken at most", param="stop")
        if "" in stops:
            raise Fault(400, "stop: an empty text ends no answer; leave it out", param="stop")
        if max(map(len, stops), default=0) > LONGEST_STOP:
            raise Fault(400, f"stop: a text may have {LONGEST_STOP} characters", param="stop")
        return stops

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self, logprobs: int | None) -> Sampling:
        """Greedy unless a temperature is asked for, because that is what the run measured."""
        seed = None if self.seed is None else self.seed % 2**63
        top_p = 1.0 if self.top_p is None else self.top_p
        temperature = self.temperature or 0.0
        greedy = temperature < COLDEST or top_p == 0
        return Sampling(0.0 if greedy else temperature, top_p, seed, logprobs)


class ChatRequest(Common):
    """Of /v1/chat/completions."""

    messages: Annotated[list[SentMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=TOP_LOGPROBS)] | None = None


class CompletionRequest(Common):
    """Of /v1/completions."""

    prompt: str | list[str] | list[int]
    logprobs: int | None = None


@dataclass(frozen=True)
class Asked:
    """A request as it is answered.

    Attributes:
        messages: as they were sent; empty where a text, or its token ids, are continued.
        max_new_tokens: None: as many as the run measured with.
    """

    model: str
    messages: tuple[ServedMessage, ...]
    text: str | list[int]
    max_new_tokens: int | None
    sampling: Sampling
    stops: tuple[str, ...]
    stream: bool
    include_usage: bool

    @property
    def chat(self) -> bool:
        return bool(self.messages)


def read_chat(body: bytes) -> Asked:
    """Raises Fault: it cannot be answered as it asks."""
    sent = _read(ChatRequest, body)
    if sent.max_tokens and sent.max_completion_tokens and sent.max_tokens != sent.max_completion_tokens:
        raise Fault(400, "max_tokens and max_completion_tokens differ: give one of them", param="max_tokens")
    if sent.top_logprobs and not sent.logprobs:
        raise Fault(400, "top_logprobs needs logprobs: true", param="top_logprobs")
    return Asked(
        model=sent.model,
        messages=tuple(ServedMessage(role=message.role, content=message.content) for message in sent.messages),
        text="",
        max_new_tokens=sent.max_completion_tokens or sent.max_tokens,
        sampling=sent.sampling((sent.top_logprobs or 0) if sent.logprobs else None),
        stops=sent.stops,
        stream=bool(sent.stream),
        include_usage=sent.include_usage,
    )


def read_completion(body: bytes) -> Asked:
    """Raises Fault: it cannot be answered as it asks."""
    sent = _read(CompletionRequest, body)
    if sent.logprobs is not None:
        raise not_supported("logprobs", "log-probabilities are given by /v1/chat/completions only")
    text: str | list[int]
    if isinstance(sent.prompt, str):
        text = sent.prompt
    elif len(sent.prompt) == 1 and isinstance(sent.prompt[0], str):
        text = sent.prompt[0]
    elif any(isinstance(part, str) for part in sent.prompt):
        raise not_supported("prompt", "one text is continued at a time; send a request for each")
    else:
        text = [part for part in sent.prompt if isinstance(part, int)]
    if not text:
        raise Fault(400, "prompt: there is no text to be continued", param="prompt")
    return Asked(
        model=sent.model, messages=(), text=text, max_new_tokens=sent.max_tokens, sampling=sent.sampling(None),
        stops=sent.stops, stream=bool(sent.stream), include_usage=sent.include_usage,
    )  # fmt: skip


S = TypeVar("S", bound=Common)


def _read(kind: type[S], body: bytes) -> S:
    try:
        values = _Anything.model_validate_json(body).model_dump()
    except ValidationError as error:
        raise Fault(400, f"The body is no JSON object: {error.errors()[0]['msg']}") from error
    for name in list(values):
        if name in IGNORED:
            del values[name]
        elif name in NEUTRAL and name not in kind.model_fields:
            neutral, why = NEUTRAL[name]
            if values.pop(name) not in (None, *neutral):
                raise not_supported(name, why)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise _fault(error.errors()) from error


class _Anything(BaseModel):
    model_config = ConfigDict(extra="allow")


def _fault(errors: Sequence[Any]) -> Fault:
    """The first thing that is wrong, with its place."""
    fault = errors[0]
    place = ".".join(str(part) for part in fault["loc"])
    message = fault["msg"]
    if fault["type"] == "extra_forbidden":
        message = "this server knows no such field; it could change the answer, so it is not passed over"
    return Fault(400, f"{place}: {message}", param=place or None)
