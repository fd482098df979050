"""`python -m bench.cost`: measure, and write docs/benchmarks.md."""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.errors import NesyLoraError
from bench.cost import document, plan
from bench.cost.laps import run
from bench.cost.machine import this_machine
from bench.cost.records import ModelSpec
from tools.model.embedded import NAME


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is not measured yet, write the page, and return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    folder = options.into or Path("runs", "bench-quick" if options.quick else "bench", options.device)
    docs = options.docs or (folder.parent if options.quick else Path("docs"))
    spec = ModelSpec(model=options.model, device=options.device)
    try:
        if not options.only_write:
            machine = this_machine(spec, shlex.join(["python", "-m", "bench.cost", *arguments]))
            run((plan.quick if options.quick else plan.full)(options.device), spec, folder, machine, print)
            if not options.quick:
                _measure_overheads(folder)
        devices = sorted(file.parent for file in folder.parent.glob("*/machine.json"))  # this one, and others beside it
        print(f"Written: {document.write(devices, docs)}")
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


def _measure_overheads(folder: Path) -> None:
    file = folder / "overheads.json"
    if not file.exists():
        from bench.overheads.__main__ import overheads

        rows = overheads(memory=folder / "memory")
        file.write_text(json.dumps([row.model_dump(mode="json") for row in rows], indent=1))


if __name__ == "__main__":
    sys.exit(main())
