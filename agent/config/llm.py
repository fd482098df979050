"""`llm:` in a task.yaml: the external LLM, and what planner, editor, judge and chat may each have of their own."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from agent.config.address import has_a_port_or_none
from agent.config.base import Settings
from agent.records.rounds import Role


class Price(Settings):
    """USD per million tokens."""

    input: float = Field(0.0, ge=0, description="of what is sent")
    output: float = Field(0.0, ge=0, description="of what comes back")


OutputMethod = Literal["tools", "one tool", "schema", "object", "text"]


def _with_a_port_or_none(url: str) -> str:
    if not has_a_port_or_none(url):
        raise ValueError("what stands behind its last colon is no port: a port is a number from 1 to 65535")
    return url


Url = Annotated[
    str,
    Field(pattern=r"^https?://[^\s/]+", description="such as http://127.0.0.1:8000/v1"),
    AfterValidator(_with_a_port_or_none),
]


OWN = "what {} has of its own: model, base_url, key_variable, temperature, max_tokens, price, way"


class RoleSettings(Settings):
    """What planner, editor, judge and chat may each have of their own; what is left out is as for all."""

    model: str | None = None
    base_url: Url | None = None
    key_variable: str | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    max_tokens: int | None = Field(None, ge=16)
    price: Price | None = None
    way: OutputMethod | None = None

    @field_validator("model", "base_url", "key_variable", "max_tokens", "price", "way", mode="before")
    @classmethod
    def says_something(cls, value: object) -> object:
        if value is None:
            raise ValueError("only `temperature` may be null; leave the key out where the role has what all have")
        return value

    @model_serializer(mode="wrap")
    def without_what_is_left_out(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A run's task.yaml holds all settings; here, null would no longer be told from what was left out."""
        return {name: value for name, value in dump(self).items() if name in self.model_fields_set}


class Llm(Settings):
    """An OpenAI-compatible server. The key is read from the environment variable named here, and nowhere else."""

    model: str = Field(description="as the server calls it")
    base_url: Url | None = None
    key_variable: str = Field("OPENAI_API_KEY", description="environment variable that holds the key")
    temperature: float | None = Field(
        0.0, ge=0, le=2, description="null: not sent; nor is it any more to a model that has refused it"
    )
    max_tokens: int = Field(2048, ge=16, description="of one answer")
    price: Price = Price()
    # Task files hold the names `way` (the method of structured output) and `patience` (how long to retry).
    way: OutputMethod | None = Field(
        None,
        description="how a choice is asked for; null: each method in turn, until one works (`check-llm` tries all)",
    )
    max_concurrency: int = Field(16, ge=1, le=256, description="calls that are out at the same time")
    timeout: float = Field(60, gt=0, description="seconds of one call")
    patience: float = Field(
        60, ge=0, description="seconds after a call's first failure in which it is tried again; 3600 sits out an hour"
    )
    on_refusal: Literal["rules", "stop"] = Field(
        "rules", description="when the key is refused or the credit is used up: go on by the rules, or end the run"
    )
    planner_calls: int = Field(
        3,
        ge=0,
        le=20,
        description="calls in a round in which the planner may look (score rows, sort failures, search prompts, try "
        "the prompt) before it names its action; 0: it names it at once",
    )
    trust: Literal["earned", "always"] = Field(
        "earned",
        description="whether the planner is told, and in the end overruled by the rules, where its own choices keep "
        "bringing less than the rules' promise; always: whatever it plans is done",
    )
    cache: bool = Field(True, description="keep answers on disk: what was asked before is not asked again")
    planner: RoleSettings = Field(RoleSettings(), description=OWN.format("the planner"))
    editor: RoleSettings = Field(RoleSettings(), description=OWN.format("the editor"))
    judge: RoleSettings = Field(RoleSettings(), description=OWN.format("the judge"))
    chat: RoleSettings = Field(RoleSettings(), description=OWN.format("the conversation"))

    def of(self, role: Role) -> "Llm":
        """These settings as they stand for one role."""
        own: RoleSettings = getattr(self, role)
        return self.model_copy(update={name: getattr(own, name) for name in own.model_fields_set})
