"""machine.json: what the numbers of a folder were measured on: processor, versions, commit."""

import os
import platform
import subprocess
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import Field

from agent.errors import BadInput
from agent.records.base import Record
from bench.cost.records import ModelSpec

PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate")


class Machine(Record):
    """What the numbers hold for."""

    date: str
    command: str
    commit: str
    processor: str
    cores: int
    memory: int = Field(description="bytes")
    device: str
    dtype: str
    model: str
    versions: dict[str, str]


def load(folder: Path) -> Machine:
    """The machine that the numbers in this folder are of."""
    return Machine.model_validate_json((folder / "machine.json").read_text())


def claim(folder: Path, machine: Machine) -> None:
    """Make `folder` hold numbers of this machine. Raises BadInput: it holds numbers of other code or machines."""
    file = folder / "machine.json"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(machine.model_dump_json(indent=1))
        return
    before = load(folder)
    if before != machine.model_copy(update={"date": before.date, "command": before.command}):
        raise BadInput(
            f"{folder} holds measurements of commit {before.commit} on {before.processor}, not of what runs now; "
            f"give another folder with --into, or remove this one"
        )


def this_machine(spec: ModelSpec, command: str) -> Machine:
    """This machine, with the versions and the commit that run now."""
    import torch

    from tools.model.loading import dtype_name

    return Machine(
        date=datetime.now().strftime("%Y-%m-%d %H:%M"), command=command, commit=_commit(), processor=_processor(),
        cores=torch.get_num_threads(), memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        device=torch.cuda.get_device_name() if spec.device == "cuda" else "CPU",
        dtype=dtype_name("auto", spec.device), model=spec.model, versions=_versions(),
    )  # fmt: skip


def _commit() -> str:
    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *words], capture_output=True, text=True, cwd=Path(__file__).parent, check=False)

    commit = git("rev-parse", "--short", "HEAD").stdout.strip()
    changed = git("diff", "--quiet", "HEAD", "--", ":/", ":(top,exclude)docs").returncode
    return f"{commit} with changes" if commit and changed else commit or "unknown"


def _processor() -> str:
    """The name and the widest vector instructions, which decide the rate of products."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = facts.get("flags", "").split()
    widest = next((name for name in ("avx512f", "avx2") if name in flags), "")
    return " ".join(part for part in (facts.get("model name", platform.machine()), widest.upper()) if part)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
