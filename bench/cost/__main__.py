"""`python -m bench.cost`: measure, and write docs/benchmarks.md."""

import argparse
import importlib
import importlib.util
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.errors import NesyLoraError
from bench.cost import plan
from bench.cost.laps import run
from bench.cost.machine import machine
from bench.cost.page import document
from bench.cost.records import Place
from tools.model.embedded import NAME

OVERHEADS = "bench.overheads.__main__"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is not measured yet, write the page, and return the exit code."""
    given = _parser().parse_args(arguments)
    folder = given.into or Path("runs", "bench-quick" if given.quick else "bench", given.device)
    docs = given.docs or (folder.parent if given.quick else Path("docs"))
    place = Place(model=given.model, device=given.device)
    try:
        if not given.only_write:
            here = machine(place, _command(sys.argv[1:] if arguments is None else arguments))
            run((plan.quick if given.quick else plan.full)(given.device), place, folder, here, print)
            if not given.quick:
                _measure_overheads(folder)
        print(f"Written: {document.write(_measured(folder), docs)}")
    except NesyLoraError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"\nbench: stopped; what was measured stands in {folder}, and the same command goes on", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.cost", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--model", default=NAME, help="hub name, local folder, or the embedded")
    parser.add_argument("--quick", action="store_true", help="three small cells, about three minutes")
    parser.add_argument("--into", type=Path, help="folder of the measurements; default: runs/bench/DEVICE")
    parser.add_argument("--docs", type=Path, help="where benchmarks.md goes; default: docs")
    parser.add_argument("--only-write", action="store_true", help="measure nothing, write the page anew")
    return parser


def _command(arguments: Sequence[str]) -> str:
    return shlex.join(["python", "-m", "bench.cost", *arguments])


def _measure_overheads(folder: Path) -> None:
    file = folder / "overheads.json"
    if importlib.util.find_spec(OVERHEADS) and not file.exists():
        found = importlib.import_module(OVERHEADS).overheads(memory=folder / "memory")
        file.write_text(json.dumps([one.model_dump(mode="json") for one in found], indent=1))


def _measured(folder: Path) -> list[Path]:
    """This device's measurements, and those of others beside it."""
    return sorted(file.parent for file in folder.parent.glob("*/machine.json"))


if __name__ == "__main__":
    sys.exit(main())
