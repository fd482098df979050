"""What a bundle says about itself: bundle.json, from which the card is written and the bundle is loaded."""

from pathlib import Path

from pydantic import Field

from agent.errors import BadInput
from agent.records.base import Record
from agent.records.rounds import KeptScore, SplitResult
from export.base import Base, sha256
from graphs.serving import best_pair
from memory.run.folder import RunFolder
from memory.storage.records import read_record

FILE = "bundle.json"
WEIGHTS = "adapter_model.safetensors"


class RoundExcerpt(Record):
    """A round of the ledger, without its rows; an LLM that plans may quote some in its reasons."""

    number: int
    action: str
    reason: str
    note: str
    kept: bool
    verdict: str
    before: float
    after: float
    p_value: float
    reward: float = Field(description="of the best pair after it, on validation rows")


class Difference(Record):
    """A row that an engine answered otherwise than the run."""

    row: str
    ours: str
    theirs: str


class Check(Record):
    """How one engine answered with the exported thing, beside the run's own model."""

    engine: str
    versions: str = ""
    split: str
    rows: int
    same: int = Field(description="rows with the same text")
    reward: float
    low: float = Field(description="95 % interval of the reward")
    high: float
    ours: float = Field(description="reward of the run's own model on the same rows")
    holds: bool = Field(description="whether the reward is not below the interval of our own")
    other_prompts: int | None = Field(
        None, description="rows whose prompt had other token ids there; None: not to be seen"
    )
    differences: tuple[Difference, ...] = Field((), description="the first of them; none of test rows")

    def __str__(self) -> str:
        prompts = f"; {self.other_prompts} prompts have other token ids" if self.other_prompts else ""
        return (
            f"{self.engine}: {self.same} of {self.rows} {self.split} answers the same, reward {self.reward:.3f} "
            f"[{self.low:.2f}, {self.high:.2f}], ours {self.ours:.3f}: {'holds' if self.holds else 'does not hold'}"
            f"{prompts}"
        )


class Manifest(Record):
    """A bundle: what is in it, what it was measured on, and how engines answered with it."""

    format: int = 1
    name: str
    task: str
    about: str = ""
    dataset: str | None = Field(None, description="the hub's name of the task's data; None: from files")
    run: str
    created: str
    version: str = Field(description="of NeSyLoRA")
    base: Base
    adapter: bool = Field(description="whether it holds one; else the bare base was best")
    kind: str = Field("", description="peft's name of the adapter's kind")
    rank: int | None = None
    attaches: bool = Field(True, description="whether vLLM takes the adapter beside the base: see export/notes.py")
    started: bool = Field(False, description="whether its weights go on from an adapter that the run was given")
    prompt: str = Field(description="id of the prompt in prompt.json")
    refined_template: bool = Field(description="whether chat_template.jinja carries the prompt")
    retrieves: int = Field(0, description="few-shot examples that each question gets, from demos.jsonl")
    switches: dict[str, object] = Field(default_factory=dict, description="arguments of the chat template")
    max_new_tokens: int
    stop: tuple[str, ...] = Field((), description="texts that end an answer, beside the end-of-turn tokens")
    merged: str | None = Field(None, description="folder of the merged model")
    gguf: tuple[str, ...] = Field((), description="files of the whole model")
    lora_gguf: str | None = Field(None, description="file of the adapter alone")
    ollama: bool = False
    test: SplitResult | None = Field(None, description="of the best pair; None: the test rows are still sealed")
    seed_test: SplitResult | None = None
    seen: int = Field(0, description="how often the test rows were seen before: a user extended the run after that")
    validation: float
    seed_validation: float
    drift: float | None = None
    keep: tuple[KeptScore, ...] = ()
    rounds: tuple[RoundExcerpt, ...] = ()
    notes: tuple[str, ...] = Field((), description="what is to be known before it is used")
    checks: tuple[Check, ...] = ()

    def without_test_answers(self) -> "Manifest":
        """Bundles of older versions hold some, which are not to be given away."""
        checks = [made if made.split != "test" else made.model_copy(update={"differences": ()}) for made in self.checks]
        return self.model_copy(update={"checks": tuple(checks)})


def read_manifest(folder: Path) -> Manifest:
    """Of a bundle. Raises BadInput: there is none, or it cannot be read."""
    if not (folder / FILE).is_file():
        raise BadInput(f"there is no bundle in {folder}: it holds no {FILE}. Make one with: nesylora export RUN")
    return read_record(Manifest, folder / FILE)


def check_pair(run: RunFolder, bundle: Path, manifest: Manifest) -> None:
    """Raises BadInput where the run has gone on to another pair: the bundle is not what the run would export now."""
    pair = best_pair(run)
    ours, theirs = (
        sha256(file) if file and file.is_file() else None
        for file in (pair.adapter and run.adapter_folder(pair.adapter) / WEIGHTS, bundle / WEIGHTS)
    )
    if (pair.prompt, ours) != (manifest.prompt, theirs):
        raise BadInput(f"{bundle} is not of the best pair that run {run.name} has now: export it again")
