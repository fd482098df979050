"""A whole task.yaml. Pydantic only: importing this loads nothing heavy."""

import json
import re
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from agent import extensions
from agent.config.address import require_postgres
from agent.config.base import Settings
from agent.config.data import Data
from agent.config.generation import Generation, engine_fault
from agent.config.llm import Llm, Price
from agent.config.lora import Lora
from agent.config.lora_options import undividable
from agent.config.memory import Memory
from agent.config.notify import Notify, TrackerName
from agent.config.policies import OBSERVING, PLANNING, POLICIES, is_policy
from agent.config.prompt import Editing, SeedPrompt
from agent.config.scorers import ContentScorer, Judge, RewardModel, StyleScorer
from agent.config.start import Start
from agent.errors import BadInput
from agent.records.limits import ROUNDS, TARGET, Limits, LlmTokens, Minutes, TrainTokens, Usd
from agent.records.rounds import Role

# What chat templates are given by us, or by the tokenizer.
TEMPLATED = frozenset({
    "messages", "conversation", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize",
    "padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask",
    "tokenizer_kwargs", "bos_token", "eos_token", "pad_token", "unk_token",
})  # fmt: skip
Component = Literal["signal", "classifier", "remaking", "memory", "gate"]


class Gate(Settings):
    """When a trial is kept: see eval/stats.py, eval/alpha_spending.py and eval/forgetting.py."""

    alpha: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="chance that a run keeps any change that is worth nothing",
    )
    drift: float | None = Field(
        0.3,
        ge=0,
        description="nats per token that the weights may lose on general text; more is taken back; null: no limit",
    )
    # At the default budget drift costs 0.015 merit: about the least gain that 32 validation rows can tell from nothing.
    # So it turns a tie, and no clear gain.
    drift_price: float = Field(0.05, ge=0, description="merit that a nat per token of drift takes off LoRA's outlook")
    keep_tolerance: float = Field(0.05, ge=0, le=1, description="mean reward that a task under `keep` may lose")


class Budget(Settings):
    """The run stops cleanly when any of these is used up. None: no limit."""

    rounds: Annotated[int, ROUNDS] = 6
    minutes: Minutes = None
    train_tokens: TrainTokens = None
    usd: Usd = None
    llm_tokens: LlmTokens = None


class Recall(Settings):
    """What an earlier run's prompts may contribute at the start of this one."""

    prompts: int = Field(2, ge=0, description="how many to try; 0 turns recall off")
    similarity: float = Field(0.5, ge=0, le=1, description="least cosine similarity of the tasks")


class TaskConfig(Settings):
    """A task.yaml: model + data + scorers + seed prompt + target + budget + settings."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64, description="what runs are called after")
    about: str = Field("", description="what the task is, for people and for the LLM that plans and edits")
    model: str = Field(
        "smollm2-135m", description="hub name, local folder (./… is relative to the task), or the embedded"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="auto: a GPU where there is one")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="precision of the base model; auto: what suits the device"
    )
    processes: int = Field(
        1, ge=1, le=64, description="that train a LoRA together, each on a GPU of its own; see docs/scale.md"
    )
    shard: bool = Field(
        False, description="divide the base among the `processes`, where no GPU holds it alone; see docs/scale.md"
    )
    chat_template_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="arguments of the model's chat template, such as enable_thinking: false"
    )
    data: Data
    prompt: SeedPrompt = SeedPrompt()
    start: Start | None = None
    content: tuple[ContentScorer, ...] = Field(min_length=1, description="is the answer right? see below")
    style: tuple[StyleScorer, ...] = Field((), description="has it the wanted form? see below")
    target: Annotated[float, TARGET] = 0.95
    budget: Budget = Budget()
    lora: Lora = Lora()
    generation: Generation = Generation()
    edit: Editing = Editing()
    gate: Gate = Gate()
    keep: tuple[str, ...] = Field(
        (), description="other tasks that new weights must not lose: paths of their task.yaml, relative to this one"
    )
    recall: Recall = Recall()
    memory: Memory = Memory()
    policy: str = Field("rules", description="rules, learned, paper, or what they are compared with: see `POLICIES`")
    experience: str = Field(
        "runs",
        description="what `learned`, and trust in a planner, rest on: the rounds of all `runs` beside this one, those "
        "that come with the package (`practice`), `none`, or a file of them",
    )
    without: tuple[Component, ...] = Field((), description="what to do without, to see what it is good for")
    planner: Literal["none", "llm"] = Field("none", description="llm: an LLM chooses the next lever; see docs/llm.md")
    llm: Llm | None = None
    notify: Notify = Notify()
    track: TrackerName | None = Field(
        None, description="a tracker of experiments that each round's numbers are logged to"
    )
    checkpoints: str | None = Field(
        None,
        description="where a run's place within a round is kept: null: a file in its folder; or a Postgres server, "
        "postgresql://user@host/database, or `$NAME` from the environment: see night.md",
    )
    seed: int = Field(0, description="of everything that is drawn")

    @model_validator(mode="after")
    def has_an_llm_where_one_is_needed(self) -> "TaskConfig":
        if self.llm is None and self.roles:
            raise ValueError(
                "`planner: llm`, `edit.editor: textgrad` or `gepa`, and scorers of `kind: judge` need an `llm:` "
                "section with at least `model`"
            )
        return self

    @model_validator(mode="after")
    def knows_prices_where_money_is_limited(self) -> "TaskConfig":
        if self.budget.usd is not None and self.unpriced:
            raise ValueError(f"`budget.usd` needs {self.unpriced}")
        return self

    @model_validator(mode="after")
    def divides_what_can_be_divided(self) -> "TaskConfig":
        if self.shard and self.processes < 2:
            raise ValueError("`shard` divides the base among `processes`: set that to the number of GPUs, at least 2")
        if self.shard and (kept := undividable(self.lora)):
            raise ValueError(
                f"`shard` cannot be combined with {kept}, which needs the base whole: set only one of them"
            )
        return self

    @model_validator(mode="after")
    def asks_of_its_engine_what_it_can(self) -> "TaskConfig":
        if fault := engine_fault(self):
            raise ValueError(fault)
        return self

    @field_validator("prompt", mode="before")
    @classmethod
    def may_be_taken_away(cls, prompt: object) -> object:
        """By an override: `prompt=null` is as if the file had none."""
        return {} if prompt is None else prompt

    @field_validator("checkpoints")
    @classmethod
    def holds_no_password(cls, address: str | None) -> str | None:
        """Not by `pattern`, whose error shows the value."""
        if address is not None and not re.fullmatch(r"\$\{?[A-Za-z_]\w*\}?", address):
            require_postgres(
                address,
                "set an environment variable to the whole address and write its name here, as $NAME; or set PGPASSWORD",
            )
        return address

    @field_validator("keep", mode="before")
    @classmethod
    def may_be_one_path(cls, keep: object) -> object:
        return (keep,) if isinstance(keep, str) else keep

    @field_validator("chat_template_kwargs")
    @classmethod
    def leaves_the_conversation_alone(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        if ours := sorted(TEMPLATED & arguments.keys()):
            raise ValueError(f"{', '.join(ours)} cannot be set: what the template is given to render is ours")
        return arguments

    @field_validator("policy")
    @classmethod
    def is_a_known_policy(cls, policy: str) -> str:
        try:
            known_policy = is_policy(policy) or extensions.policies.get(policy) is not None
        except BadInput as error:
            raise ValueError(str(error)) from error
        if not known_policy:
            known = ", ".join((*POLICIES, *extensions.policies.names()))
            raise ValueError(
                f"there is no policy {policy!r}. There are: {known}; any order of p (prompt) and w (weights) such as "
                "'w -> p -> w', and 'alternate every N'"
            )
        return policy

    @property
    def unpriced(self) -> str:
        """The price that is not set of a server that is asked: its money cannot be limited. Empty: all are set."""
        priced = {role: self.llm.of(role).price for role in self.roles} if self.llm else {}
        for role, price in priced.items():
            if not (price.input or price.output):
                return f"`llm.price: {{input: …, output: …}}` (of the {role})"
        if self.generation.engine == "openai" and self.answer_price is None:
            return "`generation.price: {input: …, output: …}` (zeros, where the server costs nothing)"
        return ""

    @property
    def answer_price(self) -> Price | None:
        """Of the answers of `engine: openai`; None: not known."""
        asked = (self.llm, *map(self.llm.of, self.roles)) if self.llm else ()
        known = (settings.price for settings in asked if settings.model == self.model)
        return self.generation.price or next((price for price in known if price.input or price.output), None)

    @property
    def pays(self) -> bool:
        """Whether a run asks servers that `budget.usd` and `budget.llm_tokens` count."""
        return bool(self.roles) or self.generation.engine == "openai"

    @property
    def limits(self) -> Limits:
        """What ends a run of this task."""
        return Limits(target=self.target, **self.budget.model_dump())

    def limited(self, limits: Limits | None) -> "TaskConfig":
        """The task with these limits in place of its own; None: as it is."""
        if limits is None or limits == self.limits:
            return self
        budget = Budget(**limits.model_dump(exclude={"target"}))
        return self.model_copy(update={"budget": budget, "target": limits.target or self.target})

    @property
    def base(self) -> tuple[str, ...]:
        """The model as it computes: in another precision, or on another device, it answers otherwise."""
        switches = (json.dumps(self.chat_template_kwargs, sort_keys=True),) if self.chat_template_kwargs else ()
        return self.model, self.device, self.dtype, *(("qlora",) if self.lora.qlora else ()), *switches

    @property
    def observes(self) -> bool:
        """Whether the policy decides by what it observes. Fixed orders do not, and recall nothing of other runs."""
        return self.policy in OBSERVING or not is_policy(self.policy)

    @property
    def models(self) -> dict[tuple[int | str, ...], str]:
        """The models to be loaded, by the keys that name them."""
        own = self.generation.engine != "openai"
        found: dict[tuple[int | str, ...], str] = {("model",): self.model} if own else {}
        for place, scorer in enumerate(self.content):
            if isinstance(scorer, RewardModel):
                found["content", place, "model"] = scorer.model
        return found

    @property
    def plans(self) -> bool:
        """Whether an LLM plans."""
        return self.planner == "llm" and self.policy in PLANNING

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles in which this task asks the external LLM."""
        judged = any(isinstance(scorer, Judge) for scorer in (*self.content, *self.style))
        asked = {"planner": self.plans, "editor": self.edit.asks_llm, "judge": judged, "chat": False, "engine": False}
        return tuple(role for role in get_args(Role) if asked[role])
