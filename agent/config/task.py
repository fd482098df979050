"""What a task.yaml may say. Pydantic only: importing this loads nothing heavy."""

import json
import re
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from agent.config.base import Settings
from agent.config.scorers import ContentScorer, Judge, RewardModel, StyleScorer
from agent.records.examples import Demo, Prompt
from agent.records.rounds import Role

POLICIES = (
    "rules", "learned", "lora-only", "prompt-only", "p -> w", "w -> p", "p -> w -> p", "alternate every 1", "random",
)  # fmt: skip
OBSERVING = ("rules", "learned")  # decide by what they observe; the others are there to be compared with
# Any order of p (prompt) and w (weights) will do, and any period; `steps` names each round's lever for itself:
# p, o (weights on rows as given) or r (on refined rows).
PATTERNS = (r"[pw]( -> [pw])*", r"alternate every [1-9]\d*", r"steps [por]+")
# What chat templates are given by us, or by the tokenizer.
TEMPLATED = frozenset({
    "messages", "conversation", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize",
    "padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask",
    "tokenizer_kwargs", "bos_token", "eos_token", "pad_token", "unk_token",
})  # fmt: skip
Faculty = Literal["signal", "classifier", "remaking", "memory", "gate"]

# --- data ----------------------------------------------------------------------------------------


class Cut(Settings):
    """How to cut splits out of a single file, after a seeded shuffle. Shares of all rows."""

    validation: float = Field(0.2, gt=0, lt=1)
    test: float = Field(0.2, gt=0, lt=1)
    seed: int = 0

    @model_validator(mode="after")
    def leaves_rows_to_train(self) -> "Cut":
        if self.validation + self.test >= 1:
            raise ValueError(
                "validation and test together must leave some rows to train on (their sum must be below 1)"
            )
        return self


class Limit(Settings):
    """Use only the first so many rows of a split."""

    train: int | None = Field(None, ge=1)
    validation: int | None = Field(None, ge=1)
    test: int | None = Field(None, ge=1)


class Data(Settings):
    """Where the rows are: three files, one file to cut, or a hub data set; and which columns to read.

    Paths are relative to the task.yaml. Files end in .jsonl, .csv, .tsv or .parquet.
    """

    train: str | None = None
    validation: str | None = None
    test: str | None = None
    path: str | None = Field(None, description="one file, cut by `cut`")
    hub: str | None = Field(
        None, description="data set name on the Hugging Face hub; then train, validation and test name its splits"
    )
    hub_config: str | None = None
    cut: Cut | None = None
    question: str = "question"
    answer: str = "answer"
    input: str | None = Field(
        None,
        description="column that goes on from the question, on a new line, where it holds anything; `input` by itself "
        'where the question is `instruction`; "" takes none',
    )
    messages: str | None = Field(None, description="column of chat messages, instead of question and answer")
    limit: Limit = Limit()
    skip_invalid: bool = Field(False, description="leave out rows that cannot be read, and count them")
    too_long: Literal["refuse", "leave_out", "wrong"] = Field(
        "refuse",
        description="validation and test rows that, with the seed prompt and generation.max_new_tokens, do not fit "
        "into the model's window: end the run before it begins, leave them out of it, or count them as wrong",
    )

    @property
    def columns(self) -> tuple[str, ...]:
        """Those that every row must have."""
        return (self.messages,) if self.messages else (self.question, self.answer)

    @model_validator(mode="after")
    def says_where_rows_come_from(self) -> "Data":
        splits = [self.train, self.validation, self.test]
        if self.hub:
            if self.path:
                raise ValueError("give `path` or `hub`, not both")
            if not self.train:
                raise ValueError("a hub data set needs `train`: the name of the hub's split to train on")
        elif self.path:
            if any(splits):
                raise ValueError("give either `path` (one file to cut) or `train`, `validation` and `test`, not both")
        elif not all(splits):
            raise ValueError("give `train`, `validation` and `test` files, or one `path` to cut into them")
        return self


# --- the run -------------------------------------------------------------------------------------


class SeedPrompt(Settings):
    """The words the run starts from."""

    system: str = ""
    template: str = "{question}"
    demos: tuple[Demo, ...] = ()

    @model_validator(mode="after")
    def keeps_a_place_for_the_question(self) -> "SeedPrompt":
        if "{question}" not in self.template:
            raise ValueError("the template must contain {question}")
        return self

    def prompt(self) -> Prompt:
        return Prompt(system=self.system, template=self.template, demos=self.demos)


class Lora(Settings):
    """How adapters are made. `options` go to peft's LoraConfig; agent.config.lora_options lists the allowed ones."""

    rank: int = Field(16, ge=1, le=256)
    alpha: float = Field(32, gt=0)
    targets: str | tuple[str, ...] = "all-linear"
    dropout: float = Field(0.0, ge=0, lt=1)
    rslora: bool = False
    dora: bool = False
    qlora: bool = Field(False, description="load the base in 4 bit; needs bitsandbytes and CUDA")
    options: dict[str, Any] = Field(default_factory=dict)
    epochs: int = Field(3, ge=1, le=20, description="of one LoRA round; the policy may ask for fewer or more")
    enough: float = Field(
        0.005, ge=0, le=10, description="nats per token; an epoch below ends the round: the rows are learned"
    )
    learning_rate: float = Field(1e-3, ge=1e-6, le=1e-2)
    batch_size: int = Field(8, ge=1, description="rows of one forward pass")
    accumulate: int = Field(1, ge=1, description="forward passes of one optimizer step")
    warmup: float = Field(0.1, ge=0, le=1, description="share of all steps")
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(1.0, gt=0, description="largest gradient norm of a step")
    checkpointing: bool = Field(
        False, description="recompute activations: less memory, a third slower; set by itself where memory runs out"
    )
    max_tokens: int = Field(2048, ge=16, description="longest row; longer ones are left out and counted")


class Generation(Settings):
    max_new_tokens: int = Field(64, ge=1)
    batch_size: int = Field(32, ge=1)


class Editing(Settings):
    """The prompt lever."""

    editor: Literal["rules", "textgrad"] = "rules"
    critiques: int = Field(8, ge=1, le=100, description="most failing train rows that TextGrad criticises in a round")
    rewrites: int = Field(12, ge=0, description="hard train questions that TextGrad rewrites in a round; 0: none")
    minibatch: int = Field(
        12, ge=1, description="rows on which proposals are compared; as many train rows are looked at for failures"
    )
    proposals: int = Field(6, ge=1)
    demos: int = Field(4, ge=0, description="most demonstrations in a prompt")
    max_length: int = Field(6000, ge=1, description="most characters in a prompt")

    @property
    def learned_from(self) -> int:
        """Train rows that are answered for editor and planner to learn from; enough for all critiques to be had."""
        return max(self.minibatch, self.critiques) if self.editor == "textgrad" else self.minibatch


class Gate(Settings):
    """When a trial is kept: see eval/stats.py and eval/alpha_spending.py."""

    alpha: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="chance that a run keeps any change that is worth nothing",
    )


class Budget(Settings):
    """The run stops cleanly when any of these is used up. None: no limit."""

    rounds: int = Field(6, ge=0, le=10_000)
    minutes: float | None = Field(None, gt=0)
    train_tokens: int | None = Field(None, gt=0)
    usd: float | None = Field(None, ge=0, description="for the external LLM")


class Price(Settings):
    """USD per million tokens."""

    input: float = Field(0.0, ge=0)
    output: float = Field(0.0, ge=0)


OutputMethod = Literal["tools", "one tool", "schema", "object", "text"]
Url = Annotated[str, Field(pattern=r"^https?://[^\s/]+", description="such as http://127.0.0.1:8000/v1")]


class RoleSettings(Settings):
    """What planner, editor and judge may each have of their own; what is left out is as for all."""

    model: str | None = None
    base_url: Url | None = None
    key_variable: str | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    max_tokens: int | None = Field(None, ge=16)
    price: Price | None = None
    way: OutputMethod | None = None

    @field_validator("model", "base_url", "key_variable", "max_tokens", "price", "way", mode="before")
    @classmethod
    def says_something(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("only `temperature` may be null; leave the key out where the role has what all have")
        return value

    @model_serializer(mode="wrap")
    def without_what_is_left_out(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A run's task.yaml holds all settings; here, null would no longer be told from what was left out."""
        return {name: value for name, value in dump(self).items() if name in self.model_fields_set}


class Llm(Settings):
    """An OpenAI-compatible server. The key is read from the environment variable named here, and nowhere else."""

    model: str
    base_url: Url | None = None
    key_variable: str = "OPENAI_API_KEY"
    temperature: float | None = Field(
        0.0, ge=0, le=2, description="null: not sent; nor is it any more to a model that has refused it"
    )
    max_tokens: int = Field(2048, ge=16, description="of one answer")
    price: Price = Price()
    way: OutputMethod | None = Field(
        None,
        description="how a choice is asked for; null: in all ways in turn, until one works (`check-llm` tries all)",
    )
    max_concurrency: int = Field(16, ge=1, le=256, description="calls that are out at the same time")
    timeout: float = Field(60, gt=0, description="seconds of one call")
    patience: float = Field(
        60, ge=0, description="seconds after a call's first failure in which it is tried again; 3600 sits out an hour"
    )
    on_refusal: Literal["rules", "stop"] = Field(
        "rules", description="when the key is refused or the credit is used up: go on by the rules, or end the run"
    )
    cache: bool = Field(True, description="keep answers on disk: what was asked before is not asked again")
    planner: RoleSettings = RoleSettings()
    editor: RoleSettings = RoleSettings()
    judge: RoleSettings = RoleSettings()

    def of(self, role: Role) -> "Llm":
        """These settings as they stand for one role."""
        own: RoleSettings = getattr(self, role)
        return self.model_copy(update={name: getattr(own, name) for name in own.model_fields_set})


class Recall(Settings):
    """What an earlier run's prompts may contribute at the start of this one."""

    prompts: int = Field(2, ge=0, description="how many to try; 0 turns recall off")
    similarity: float = Field(0.5, ge=0, le=1, description="least cosine similarity of the tasks")


class TaskConfig(Settings):
    """A task.yaml: model + data + scorers + seed prompt + target + budget + settings."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)
    about: str = ""
    model: str = Field(
        "smollm2-135m", description="hub name, local folder (./… is relative to the task), or the embedded"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    chat_template_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="arguments of the model's chat template, such as enable_thinking: false"
    )
    data: Data
    prompt: SeedPrompt = SeedPrompt()
    content: tuple[ContentScorer, ...] = Field(min_length=1)
    style: tuple[StyleScorer, ...] = ()
    target: float = Field(0.95, gt=0, le=1, description="validation reward at which the run is done")
    budget: Budget = Budget()
    lora: Lora = Lora()
    generation: Generation = Generation()
    edit: Editing = Editing()
    gate: Gate = Gate()
    recall: Recall = Recall()
    policy: str = Field("rules", description="rules, learned, or what they are compared with: see `POLICIES`")
    experience: str = Field(
        "runs",
        description="what `learned` learns from: the rounds of all `runs` beside this one, those that come with the "
        "package (`practice`), `none`, or a file of them",
    )
    without: tuple[Faculty, ...] = Field((), description="what to do without, to see what it is good for")
    planner: Literal["none", "llm"] = "none"
    llm: Llm | None = None
    seed: int = 0

    @model_validator(mode="after")
    def has_an_llm_where_one_is_needed(self) -> "TaskConfig":
        if self.llm is None and self.roles:
            raise ValueError(
                "`planner: llm`, `edit.editor: textgrad` and scorers of `kind: judge` need an `llm:` section with at "
                "least `model`"
            )
        return self

    @model_validator(mode="after")
    def knows_prices_where_money_is_limited(self) -> "TaskConfig":
        if self.budget.usd is not None and self.llm:
            for role in self.roles:
                price = self.llm.of(role).price
                if not (price.input or price.output):
                    raise ValueError(f"`budget.usd` needs `llm.price: {{input: …, output: …}}` (of the {role})")
        return self

    @field_validator("chat_template_kwargs")
    @classmethod
    def leaves_the_conversation_alone(cls, given: dict[str, Any]) -> dict[str, Any]:
        if ours := sorted(TEMPLATED & given.keys()):
            raise ValueError(f"{', '.join(ours)} cannot be set: what the template is given to render is ours")
        return given

    @field_validator("policy")
    @classmethod
    def is_a_known_policy(cls, policy: str) -> str:
        if policy not in POLICIES and not any(re.fullmatch(pattern, policy) for pattern in PATTERNS):
            known = ", ".join(POLICIES)
            raise ValueError(
                f"there is no policy {policy!r}. There are: {known}; any order of p (prompt) and w (weights) such as "
                "'w -> p -> w', and 'alternate every N'"
            )
        return policy

    @property
    def base(self) -> tuple[str, ...]:
        """The model as it computes: in another precision, or on another device, it answers otherwise."""
        switches = (json.dumps(self.chat_template_kwargs, sort_keys=True),) if self.chat_template_kwargs else ()
        return self.model, self.device, self.dtype, *(("qlora",) if self.lora.qlora else ()), *switches

    @property
    def observes(self) -> bool:
        """Whether the policy decides by what it observes. What it is compared with does not, and keeps to itself."""
        return self.policy in OBSERVING

    @property
    def models(self) -> dict[tuple[int | str, ...], str]:
        """The models to be loaded, by the keys that name them."""
        found: dict[tuple[int | str, ...], str] = {("model",): self.model}
        for place, scorer in enumerate(self.content):
            if isinstance(scorer, RewardModel):
                found["content", place, "model"] = scorer.model
        return found

    @property
    def plans(self) -> bool:
        """Whether an LLM plans."""
        return self.planner == "llm" and self.observes

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles in which this task asks an LLM."""
        judged = any(isinstance(scorer, Judge) for scorer in (*self.content, *self.style))
        asked = {"planner": self.plans, "editor": self.edit.editor == "textgrad", "judge": judged}
        return tuple(role for role in get_args(Role) if asked[role])
