"""What a CUDA card makes of training and answering, in at most ten minutes: `python -m bench.cost.gpu`.

Random Llamas in bfloat16, made from a configuration, so that nothing is downloaded but a tokenizer; and a run of the
example task with its real model. Beside ours: the plain peft loop, TRL, and transformers' `generate` over sorted rows
with the adapter merged, compiled too, and `generate_batch`. What is not installed, or fails here, is left out by name.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import transformers

from bench.cost.gpu import answers, demo, profiling, race, train
from bench.cost.gpu.models import SIZES, Bench, make
from tools.model.embedded import embedded_model

TABLES = ("answers", "race", "training", "demo", "profile", "losses", "fp32")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, and write their lines as JSON."""
    options = _parser().parse_args(arguments)
    began = time.perf_counter()
    source = options.tokenizer or str(embedded_model(lambda *_: None))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(device, "torch", torch.__version__, "transformers", transformers.__version__)
    lines: list[dict[str, object]] = []
    for number, size in enumerate(options.size):
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
        bench = Bench(make(size, tokenizer), tokenizer, size, options.laps, 60 * options.minutes, lines, began)
        for name in options.tables:
            if name == "demo" and number:
                continue  # it has a model of its own
            bench.peer(f"{name}, {size}", _tables(bench, options)[name])
            print(f"{name} done after {time.perf_counter() - began:.0f} s", flush=True)
            if options.into:
                options.into.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def _tables(bench: Bench, options: argparse.Namespace) -> dict[str, Callable[[], None]]:
    return {
        "answers": lambda: answers.answers_table(bench, options.compiled),
        "race": lambda: race.race_table(bench),
        "profile": lambda: profiling.profiled(bench),
        "training": lambda: train.training_table(bench),
        "losses": lambda: train.losses_agree(bench),
        "fp32": lambda: answers.exact_texts(bench),
        "demo": lambda: demo.demo(bench, options.task),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.cost.gpu", description=__doc__)
    parser.add_argument("--tokenizer", help="a folder with a tokenizer; SmolLM2's comes with the package")
    parser.add_argument("--size", choices=SIZES, nargs="+", default=["large"], help="one or more random models")
    parser.add_argument("--tables", type=_names, default=TABLES, help=f"which, in this order: {','.join(TABLES)}")
    parser.add_argument("--compiled", action="store_true", help="a compiled `generate`, too: half a minute more a cell")
    parser.add_argument("--laps", type=int, default=4, help="of answers, after the first call")
    parser.add_argument("--minutes", type=float, default=10, help="after which nothing new is begun")
    parser.add_argument("--task", type=Path, default=demo.TASK, help="of the demo")
    parser.add_argument("--into", type=Path, help="a file for the lines")
    return parser


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in TABLES]:
        raise argparse.ArgumentTypeError(f"there is no table {unknown[0]!r}; there are {', '.join(TABLES)}")
    return names


if __name__ == "__main__":
    main()
