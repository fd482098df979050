"""What the numbers hold for: processor, versions, commit."""

import os
import platform
import subprocess
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.cost.records import Machine, Place

PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate")


def machine(place: Place, command: str) -> Machine:
    """This machine, now."""
    import torch

    from tools.model.loading import pick_dtype

    return Machine(
        date=datetime.now().strftime("%Y-%m-%d %H:%M"), command=command, commit=_commit(), processor=_processor(),
        cores=torch.get_num_threads(), memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        device=torch.cuda.get_device_name() if place.device == "cuda" else "CPU",
        dtype=str(pick_dtype(place.device)).removeprefix("torch."), model=place.model, versions=_versions(),
    )  # fmt: skip


def _commit() -> str:
    commit = _git("rev-parse", "--short", "HEAD").stdout.strip()
    changed = _git("diff", "--quiet", "HEAD", "--", ":/", ":(top,exclude)docs").returncode
    return f"{commit} with changes" if commit and changed else commit or "unknown"


def _git(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *words], capture_output=True, text=True, cwd=Path(__file__).parent, check=False)


def _processor() -> str:
    """The name and the widest vector instructions, which decide the rate of products."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    widest = next((one for one in ("avx512f", "avx2") if one in facts.get("flags", "").split()), "")
    return " ".join(part for part in (facts.get("model name", platform.machine()), widest.upper()) if part)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
