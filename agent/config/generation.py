"""`generation:` in a task.yaml: how answers are generated, and by whom."""

import re
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from agent.config.base import Settings
from agent.config.llm import Price, Url
from agent.config.lora import Lora
from agent.errors import BadInput

if TYPE_CHECKING:
    from agent.config.task import TaskConfig

EngineName = Literal["own", "vllm", "openai"]
WORDS_ONLY = r"prompt-only|p( -> p)*|steps p+"  # policies that never train
# What vLLM does not take of an adapter, or takes in another sense than peft.
NOT_IN_VLLM = ("modules_to_save", "lora_bias", "trainable_token_indices", "layer_replication")


class Generation(Settings):
    """How answers are generated: greedily, on every split."""

    max_new_tokens: int = Field(64, ge=1, description="length of an answer, in tokens, at most")
    batch_size: int = Field(32, ge=1, description="rows that are answered at a time; of an engine, open requests")
    engine: EngineName = Field(
        "own",
        description="who answers: this program; a vLLM server; or any server of OpenAI's protocol, whose weights "
        "nobody need have here: see docs/engines.md",
    )
    url: Url | None = Field(None, description="address of the engine, up to and with /v1; null: vLLM is started here")
    python: str | None = Field(
        None, description="interpreter of the environment that has vLLM, to start it; null: the one that runs this"
    )
    arguments: tuple[str, ...] = Field((), description="more arguments of `vllm serve`, where it is started here")
    key_variable: str | None = Field(
        None, description="environment variable that holds the engine's key; null: none is sent"
    )
    price: Price | None = Field(
        None, description="of answers by `engine: openai`, USD per million tokens; null: that of `llm` for this model"
    )
    patience: float = Field(60, ge=0, description="seconds that an engine is waited for that does not answer")
    answer_seconds: float = Field(
        600, gt=0, description="seconds that an engine may take for one answer, while others are out"
    )

    @model_validator(mode="after")
    def has_what_its_engine_reads(self) -> "Generation":
        if self.engine == "openai" and self.url is None:
            raise ValueError("`engine: openai` needs `url`, the server's address up to and with /v1")
        parts = urlsplit(self.url or "")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("`url` ends with /v1 and holds no key or password: name its variable as `key_variable`")
        started = self.engine == "vllm" and self.url is None
        idle = [name for name in ("python", "arguments") if getattr(self, name) and not started]
        idle += [name for name in ("url", "key_variable") if getattr(self, name) and self.engine == "own"]
        ours = [name for name in self.arguments if name.split("=")[0].replace("_", "-") in ("--api-key", "--port")]
        if ours:
            raise ValueError(
                "`arguments` may hold neither --port nor --api-key: a key of yours is named as `key_variable`"
            )
        idle += ["price"] if self.price and self.engine != "openai" else []
        if idle:
            way_out = "set `engine: vllm`" if self.engine == "own" else "leave out either that or `url`"
            raise ValueError(f"{' and '.join(f'`{name}`' for name in idle)} would have no effect: {way_out}")
        return self

    @property
    def identity(self) -> tuple[str, ...]:
        """What tells an engine's answers from those of another; empty for our own. A server may move, so no address."""
        return () if self.engine == "own" else (self.engine, *self.arguments)


def engine_fault(config: "TaskConfig") -> str | None:
    """What the task asks for, and its engine cannot do; None: it can."""
    engine, lora = config.generation.engine, config.lora
    if engine == "vllm":
        given = [f"lora.options.{name}" for name in NOT_IN_VLLM if lora.options.get(name)]
        given += ["lora.dora"] if lora.dora else []
        given += ["lora.qlora"] if lora.qlora else []
        if given:
            return f"`generation.engine: vllm` cannot answer with {given[0]}: leave that out, or set `engine: own`"
    if engine == "openai":
        if not re.fullmatch(WORDS_ONLY, config.policy):
            return (
                f"`generation.engine: openai` answers without weights here, and `policy: {config.policy}` may train "
                "them: set `policy: prompt-only`; or `engine: vllm` or `own`, with a `model` that can be loaded here"
            )
        if config.chat_template_kwargs:
            return (
                "`generation.engine: openai` sends no `chat_template_kwargs`: leave them out, and set them where the "
                "server is started"
            )
        if config.data.too_long == "leave_out":
            return (
                "`generation.engine: openai` has no tokenizer, so that no row is left out before it is asked: set "
                "data.too_long to wrong, or to refuse, which ends the run at the first that its server calls too long"
            )
        if config.start and config.start.adapter:
            return "`generation.engine: openai` takes no adapter, and `start` brings one: give its prompt alone"
    return None


def require_weights(config: "TaskConfig", what: str) -> None:
    """Raises BadInput where the task's model answers without weights here, which `what` needs."""
    if config.generation.engine == "openai":
        raise BadInput(
            f"{what} needs the weights of '{config.model}', and `generation.engine: openai` answers without them. Set "
            "`engine: vllm` or `own`, and a `model` that can be loaded here"
        )


def max_rank(lora: Lora) -> int:
    """The least `--max-lora-rank` of vLLM that holds these adapters."""
    return next(size for size in (8, 16, 32, 64, 128, 256) if size >= lora.rank)
