"""`nesylora export`: a run's best pair as a bundle, and how engines answer with it."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import BadInput

if TYPE_CHECKING:
    from memory.run.folder import RunFolder


def add_export(command: argparse.ArgumentParser) -> None:
    """The options of the command; its run is named as for `report`."""
    command.add_argument("--into", type=Path, metavar="FOLDER", help="default: `bundle` in the run's folder")
    command.add_argument(
        "--merged", action="store_true", help="also the whole model, the adapter merged, as safetensors"
    )
    command.add_argument(
        "--gguf", action="append", default=[], choices=("f16", "q8_0", "lora"),
        help="also the whole model as GGUF, for llama.cpp and Ollama, or its adapter alone; may be given again",
    )  # fmt: skip
    command.add_argument("--ollama", action="store_true", help="also a Modelfile for the GGUF")
    command.add_argument("--base", metavar="NAME", help="the hub's name of a base that the task takes from a folder")
    command.add_argument("--push", metavar="REPO", help="upload the bundle to the hub, as a private repository")
    check = command.add_argument_group("checking")
    check.add_argument(
        "--check", action="store_true", help="ask the bundle the validation rows in each engine; exports only if new"
    )
    check.add_argument("--test-rows", action="store_true", help="the test rows instead: they are opened once more")
    check.add_argument("--python", default=sys.executable, metavar="PATH", help="an interpreter that has the engines")
    check.add_argument("--server", metavar="URL", help="an OpenAI-compatible server that serves the bundle, with /v1")
    check.add_argument("--model", metavar="NAME", help="as that server calls it; default: the task's name")


def export(folder: "RunFolder", options: argparse.Namespace) -> int:
    """Export, check and push, as asked for. 1 where a check does not hold."""
    from export.bundle import Wanted, export_run
    from export.manifest import FILE, read_manifest
    from ui.terminal.live import LiveView

    if (options.test_rows or options.server) and not options.check:
        raise BadInput("--test-rows and --server are for --check")
    wanted = Wanted(options.merged, tuple(dict.fromkeys(options.gguf)), options.ollama, options.base)
    bundle = options.into or folder.path / "bundle"
    kept = options.check and (bundle / FILE).is_file() and wanted == Wanted()
    with LiveView() as view:
        if not kept:
            bundle = export_run(folder.path, options.into, wanted, view)
        if options.check:
            _check(folder.path, bundle, options, view)
    manifest = read_manifest(bundle)
    print(f"The bundle is in {bundle}; its card: {bundle / 'README.md'}")
    for note in manifest.notes:
        print(f"- {note}")
    if options.push:
        from export.hub import push

        print(f"It is at {push(bundle, options.push)}")
    split = "test" if options.test_rows else "validation"
    asked = [made for made in manifest.checks if made.split == split] if options.check else []
    return int(not all(made.holds for made in asked))


def _check(run: Path, bundle: Path, options: argparse.Namespace, view: "object") -> None:
    from export.check import Server, check

    server = None
    if options.server:
        if not options.server.startswith(("http://", "https://")):
            raise BadInput(f"--server {options.server}: begin it with http:// or https://")
        from export.manifest import read_manifest

        server = Server(options.server, options.model or read_manifest(bundle).task)
    check(
        run, bundle, "test" if options.test_rows else "validation", python=options.python, server=server,
        progress=view, notify=view.console.print,  # type: ignore[arg-type, attr-defined]
    )  # fmt: skip
