"""`nesylora serve`: bundles and runs behind an OpenAI-compatible server."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import BadInput

if TYPE_CHECKING:
    from export.manifest import Manifest
    from ui.serve.models import Served

TOKEN = "NESYLORA_TOKEN"
LOCAL = ("127.0.0.1", "localhost", "::1")


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`serve`."""
    command = commands.add_parser("serve", help="an OpenAI-compatible server of bundles, or of runs' best pairs")
    command.add_argument(
        "source", nargs="+", metavar="BUNDLE|RUN",
        help="a bundle's folder, or a run; several over one base; NAME=BUNDLE names it; default name: the task's",
    )  # fmt: skip
    command.add_argument("--runs", type=Path, default=Path("runs"), metavar="FOLDER", help="default: ./runs")
    command.add_argument("--base", metavar="NAME", help="a hub name or folder of the base, if a bundle names none")
    command.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1; others only with a token")
    command.add_argument("--port", type=int, metavar="N", help="default: 8000, or a free one where that is taken")
    command.add_argument(
        "--token", default=os.environ.get(TOKEN), help=f"what clients must send as their key; default: ${TOKEN}"
    )
    limits = command.add_argument_group("limits")
    limits.add_argument("--rows", type=_count, default=64, metavar="N", help="requests answered at a time (64)")
    limits.add_argument("--queue", type=_count, default=256, metavar="N", help="requests that wait beyond them (256)")
    limits.add_argument(
        "--length", type=_count, metavar="TOKENS", help="of prompt and answer together; default: the model's window"
    )
    limits.add_argument("--seconds", type=_positive, default=600, metavar="N", help="of a request (600)")
    limits.add_argument(
        "--rate", type=_positive, default=0, metavar="N", help="requests a minute of one address; default: no limit"
    )
    command.add_argument(
        "--log", type=Path, metavar="FILE", help="write each request and its answer there (JSON lines)"
    )
    command.set_defaults(do=_serve)


def _serve(options: argparse.Namespace) -> int:
    from ui.options import quiet_libraries

    quiet_libraries()
    if options.token == "":
        raise BadInput(f"the token is empty: give --token or ${TOKEN} some text, or leave it out")
    if options.host not in LOCAL and not options.token:
        raise BadInput(f"--host {options.host} lets other machines in: give a token, by --token or ${TOKEN}")
    from tools.continuous.engine import Engine
    from ui.serve.app import Limits, make_app
    from ui.serve.log import RequestLog
    from ui.serve.models import load, read_pairs
    from ui.serve.server import listen, serve
    from ui.terminal.live import LiveView

    pairs = read_pairs(options.source, options.runs, options.base)
    log = RequestLog(options.log) if options.log else None
    listening = listen(options.host, options.port)  # before the model is loaded: a port that is taken is told at once
    with LiveView() as view:
        backbone, served = load(pairs, view)
        engine = Engine(
            backbone, {model.name: model.weights for model in served}, most_rows=options.rows,
            most_waiting=options.queue, longest=options.length,
        )  # fmt: skip
        engine.start()
    app = make_app(engine, served, token=options.token, limits=Limits(options.seconds, options.rate), log=log)
    host = f"[{options.host}]" if ":" in options.host else options.host
    print(told(served, f"http://{host}:{listening.getsockname()[1]}/v1", bool(options.token)), flush=True)
    print("Ctrl-C ends the server, once the requests under way are answered.", file=sys.stderr, flush=True)
    return serve(app, listening)


def told(served: "Sequence[Served]", url: str, token: bool) -> str:
    """What a user needs to ask the server, and to serve the same with other engines."""
    first = served[0]
    key = f'os.environ["{TOKEN}"]' if token else '"none"'
    header = f' -H "Authorization: Bearer ${TOKEN}"' if token else ""
    body = f'{{"model": "{first.name}", "messages": [{{"role": "user", "content": "…"}}]}}'
    names = ", ".join(model.name for model in served)
    lines = [
        f"Serving {names} over {first.pair.base.model} at {url}",
        f"  curl {url}/chat/completions -H 'content-type: application/json'{header} -d {shlex.quote(body)}",
        f'  python: OpenAI(base_url="{url}", api_key={key}).chat.completions.create(model="{first.name}", '
        'messages=[{"role": "user", "content": "…"}])',
        *(
            f"{model.name} was measured with `generation.engine: {model.pair.engine}`; here our own backbone answers."
            for model in served
            if model.pair.engine != "own"
        ),
        "Elsewhere, with the exported bundle:",
        *(f"  {line}" for model in served for line in _elsewhere(model)),
    ]
    return "\n".join(lines)


def _elsewhere(model: "Served") -> list[str]:
    """Commands of other engines; those that need files the bundle lacks come with what makes them."""
    from export.manifest import FILE, read_manifest

    source = model.pair.source
    bundle, gguf = source / "bundle", f"{model.pair.task}-f16.gguf"
    lines: list[str] = []
    if not (source / FILE).is_file():
        made = ["nesylora", "export", str(source), "--merged", "--gguf", "f16"]
        lines = [f"{shlex.join(made)}   # first: this makes the bundle"]
    else:
        manifest, bundle = read_manifest(source), source
        gguf = manifest.gguf[0] if manifest.gguf else gguf
        if not (manifest.merged and manifest.gguf):
            lines = [f"{shlex.join(_making_anew(manifest, bundle))}   # first, where the run is"]
    name, whole, file = (shlex.quote(str(part)) for part in (model.name, bundle / "merged", bundle / gguf))
    retrieves = f"The prompt retrieves: send them the messages of nesylora.load({str(bundle)!r}).messages(question)."
    return [
        *lines,
        f"vllm serve {whole} --served-model-name {name}",
        f"python -m sglang.launch_server --model-path {whole} --served-model-name {name}",
        f"llama-server -m {file} --jinja --alias {name}",
        *([retrieves] if model.prompt.retrieval else []),
    ]


def _making_anew(manifest: "Manifest", bundle: Path) -> list[str]:
    """The command that makes a bundle with all it has, which it replaces, and the whole model in both forms."""
    files = (*manifest.gguf, *([manifest.lora_gguf] if manifest.lora_gguf else []))
    kinds = [file.removeprefix(f"{manifest.task}-").removesuffix(".gguf") for file in files]
    kinds = kinds if manifest.gguf else ["f16", *kinds]
    named = manifest.base.hub if manifest.base.task_model is None else None  # of a base from a folder
    return [
        "nesylora", "export", manifest.run, "--into", str(bundle), "--merged", *(f"--gguf={kind}" for kind in kinds),
        *(["--ollama"] if manifest.ollama else []), *(["--base", named] if named else []),
    ]  # fmt: skip


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is no number from 1 on")
    return int(text)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number above 0")
    return number
