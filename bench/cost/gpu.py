"""What a CUDA card makes of training and answering, in a few minutes: `python -m bench.cost.gpu`.

A random Llama of 1.07 billion weights in bfloat16, made from a configuration, so that nothing is downloaded but a
tokenizer. Beside ours: the plain peft loop, and `generate` over sorted rows with the adapter merged.
"""

import argparse
import copy
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers
from torch.profiler import ProfilerActivity, profile

from bench.cost.contenders import answering, floor, training
from bench.cost.inputs import Loaded, Rows, question_rows, training_rows
from bench.cost.records import AnswerCell, TrainingCell
from tools.model.backbone import Backbone
from tools.model.embedded import embedded_model

SIZES = {
    "large": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32},
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
}
TRAINING = ((80, 16), (512, 16), (1024, 32))  # shared tokens, about, and rows
PREFIXES = (256, 1024)
LAPS = 4
STEPS = 10
WARM_UP = 3  # steps of a training that are not counted: one as it is, one captured, one more


@dataclass(frozen=True)
class Bench:
    """A model that every contender gets a copy of, and what has been measured so far."""

    master: Any
    tokenizer: Any
    lines: list[dict[str, Any]]

    def loaded(self) -> Loaded:
        """A fresh copy; the memory of the last one is given back, and the peak begins anew."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        return Loaded(copy.deepcopy(self.master), self.tokenizer)

    def add(self, table: str, **line: Any) -> None:
        """Print a line at once, and keep it."""
        line["gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2) if torch.cuda.is_available() else None
        self.lines.append({"table": table, **line})
        print(table, json.dumps(line), flush=True)


def make(size: str, tokenizer: Any) -> Any:
    """The random model, on the card where there is one."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = SIZES[size] | {"num_key_value_heads": SIZES[size]["num_attention_heads"] // 4}
    config = transformers.LlamaConfig(
        **sizes, vocab_size=len(tokenizer), tie_word_embeddings=True, max_position_embeddings=8192,
        eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id, pad_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()


# --- training ------------------------------------------------------------------------------------


def training_table(bench: Bench) -> None:
    """Seconds of a step, the least and the median after the warm-up; the floor; the loss after the last step."""
    for prefix, batch in TRAINING:
        rows = training_rows(bench.tokenizer, TrainingCell(prefix=prefix, batch=batch, steps=STEPS))
        least = floor.training_floor(bench.loaded(), rows).least_seconds()
        for name, trainer in (("ours", training.ours), ("plain", training.plain)):
            loaded = bench.loaded()
            start = loaded.now()
            steps = trainer(loaded, rows, STEPS)
            laps = [after - before for before, after in pairwise([start, *steps.ends])]
            counted = sorted(laps[WARM_UP:])
            bench.add(
                "training", shared=rows.shared, batch=batch, who=name, best=round(counted[0], 5),
                median=round(median(counted), 5), first=[round(lap, 3) for lap in laps[:WARM_UP]],
                floor=round(least, 5), share_of_floor=round(least / counted[0], 3), loss=round(steps.loss, 4),
            )  # fmt: skip
            del loaded


def losses_agree(bench: Bench) -> None:
    """The loss of the first step, ours beside the plain loop's, relative; in bfloat16 and in fp32."""
    rows = training_rows(bench.tokenizer, TrainingCell(prefix=80, batch=16, steps=2))
    for dtype in (torch.bfloat16, torch.float32):
        losses = []
        for trainer in (training.ours, training.plain):
            loaded = bench.loaded()
            loaded.model.to(dtype=dtype)  # type: ignore[call-arg]
            with first_loss_kept():
                losses.append(trainer(loaded, rows, 2).loss)
        bench.add("losses", dtype=str(dtype), ours=losses[0], plain=losses[1], off=abs(losses[0] / losses[1] - 1))


@contextmanager
def first_loss_kept() -> Iterator[None]:
    """A step changes next to nothing, so that the last loss is the first."""
    before = training.SETTINGS
    training.SETTINGS = before.model_copy(update={"learning_rate": 1e-6, "weight_decay": 0.0})
    try:
        yield
    finally:
        training.SETTINGS = before


# --- answers -------------------------------------------------------------------------------------


def answers_table(bench: Bench, compiled: bool) -> None:
    """Seconds of all answers: the first call, and the best of the later ones."""
    for prefix in PREFIXES:
        for adapter in (False, True):
            cell = AnswerCell(prefix=prefix, rows=64, new=48, adapter=adapter, batch_size=64)
            with tempfile.TemporaryDirectory() as folder:
                if adapter:
                    answering.save_adapter(bench.loaded(), Path(folder))
                answers_of_cell(bench, cell, Path(folder), compiled and adapter and prefix == PREFIXES[-1])


def answers_of_cell(bench: Bench, cell: AnswerCell, adapters: Path, compiled: bool) -> None:
    """Contenders one after the other."""
    rows = question_rows(bench.tokenizer, cell)
    texts: dict[str, list[str]] = {}
    for name in ("ours", "generate", "compiled")[: 2 + compiled]:
        if name == "ours":
            texts[name], seconds = ours(bench, rows, cell, adapters)
        else:
            texts[name], seconds = careful_generate(bench, rows, cell, adapters, compiled=name == "compiled")
        bench.add(
            "answers", shared=rows.shared, adapter=cell.adapter, who=name, first=round(seconds[0], 3),
            best=round(min(seconds[1:]), 4), laps=[round(lap, 4) for lap in seconds[1:]],
            same_as_ours=same(texts["ours"], texts[name]),
        )  # fmt: skip


def ours(bench: Bench, rows: Rows, cell: AnswerCell, adapters: Path) -> tuple[list[str], list[float]]:
    """tools.model.backbone, as a run uses it; rendering and tokenizing the prompts counts."""
    loaded = bench.loaded()
    backbone = Backbone(loaded.model, loaded.tokenizer, name="bench", locate=adapters.joinpath)
    adapter = answering.ADAPTER if cell.adapter else None
    seconds = []
    for _ in range(1 + LAPS):
        start = loaded.now()
        texts, _ = backbone.generate(rows.prompt, rows.examples, adapter=adapter, max_new_tokens=cell.new)
        seconds.append(loaded.now() - start)
        backbone._kept.prefix_key = None  # the prefix is read anew each time, as where prompts are compared
    return [text or "" for text in texts], seconds


def careful_generate(
    bench: Bench, rows: Rows, cell: AnswerCell, adapters: Path, compiled: bool = False
) -> tuple[list[str], list[float]]:
    """`generate` over rows sorted by length, merged before the first call; token ids are given."""
    from peft import PeftModel

    loaded = bench.loaded()
    model: Any = loaded.model
    seconds = []
    if cell.adapter:
        start = loaded.now()
        model = PeftModel.from_pretrained(model, str(adapters / answering.ADAPTER)).merge_and_unload()
        print("loading and merging took", round(loaded.now() - start, 3), flush=True)
    if compiled:
        model.generation_config.cache_implementation = "static"
    order = sorted(range(len(rows.tokens)), key=lambda index: len(rows.tokens[index].prompt))
    texts = [""] * len(order)
    for _ in range(1 + LAPS):
        start = loaded.now()
        with torch.inference_mode():
            for first in range(0, len(order), cell.batch_size):
                places = order[first : first + cell.batch_size]
                prompts = [rows.tokens[place].prompt for place in places]
                answers = answering.padded_answers(loaded, model, prompts, cell.new)
                for place, text in zip(places, answers, strict=True):
                    texts[place] = text
        seconds.append(loaded.now() - start)
    return texts, seconds


def same(left: Sequence[str], right: Sequence[str]) -> str:
    """How many texts are the same."""
    return f"{sum(a == b for a, b in zip(left, right, strict=True))} of {len(left)}"


def exact_texts(bench: Bench) -> None:
    """In fp32, where only equal logits can make a difference: fewer rows, ours beside `generate`."""
    exact = Bench(copy.deepcopy(bench.master).float(), bench.tokenizer, bench.lines)
    cell = AnswerCell(prefix=256, rows=16, new=24, adapter=True, batch_size=16)
    rows = question_rows(bench.tokenizer, cell)
    with tempfile.TemporaryDirectory() as folder:
        answering.save_adapter(exact.loaded(), Path(folder))
        texts, seconds = ours(exact, rows, cell, Path(folder))
        plain, plain_seconds = careful_generate(exact, rows, cell, Path(folder))
    exact.add("fp32", same=same(texts, plain), ours=round(min(seconds), 3), generate=round(min(plain_seconds), 3))


# --- where the time goes -------------------------------------------------------------------------


def profiled(bench: Bench) -> None:
    """Launches and kernels of one warm call of 64 answers, and of one warm training step."""
    cell = AnswerCell(prefix=PREFIXES[-1], rows=64, new=48)
    rows = question_rows(bench.tokenizer, cell)
    loaded = bench.loaded()
    backbone = Backbone(loaded.model, loaded.tokenizer, name="bench", locate=Path)
    answer = lambda: backbone.generate(rows.prompt, rows.examples, adapter=None, max_new_tokens=cell.new)  # noqa: E731
    for _ in range(2):
        answer()
    start = time.perf_counter()
    backbone.render.prompts_ids(rows.prompt, rows.examples)
    rendering = time.perf_counter() - start
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        answer()
        loaded.now()
    calls: Counter[str] = Counter()
    kernels: Counter[str] = Counter()
    times: Counter[str] = Counter()
    for event in profiler.events() or []:
        if "CUDA" in str(event.device_type):
            kernels[event.name] += 1
            times[event.name] += event.device_time_total
        elif event.name.startswith("cu"):
            calls[event.name] += 1
    launches = sum(count for name, count in calls.items() if "LaunchKernel" in name)
    layer_steps = loaded.model.config.num_hidden_layers * (cell.new - 1)
    bench.add(
        "profile", rendering=round(rendering, 4), launches=launches, graph_launches=calls["cudaGraphLaunch"],
        launches_per_layer_and_step=round(launches / layer_steps, 2), kernels=sum(kernels.values()),
        kernels_per_layer_and_step=round(sum(kernels.values()) / layer_steps, 1),
        device_seconds=round(sum(times.values()) / 1e6, 4),
    )  # fmt: skip
    for name, microseconds in times.most_common(30):
        print(f"  {microseconds / 1000:8.2f} ms {kernels[name]:6d} × {name[:110]}", flush=True)
    print("  host:", dict(calls.most_common(8)), flush=True)


def main() -> None:
    """Print the tables, and write their lines as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", help="a folder with a tokenizer; SmolLM2's comes with the package")
    parser.add_argument("--size", choices=SIZES, default="large")
    parser.add_argument("--tables", default="answers,profile,training,losses,fp32", help="which, in this order")
    parser.add_argument("--compiled", action="store_true", help="beside them a compiled `generate`; half a minute more")
    parser.add_argument("--into", type=Path, help="a file for the lines")
    options = parser.parse_args()
    started = time.perf_counter()
    source = options.tokenizer or str(embedded_model(lambda *_: None))
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    bench = Bench(make(options.size, tokenizer), tokenizer, [])
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(device, "torch", torch.__version__, "transformers", transformers.__version__)
    tables: dict[str, Callable[[], None]] = {
        "answers": lambda: answers_table(bench, options.compiled),
        "profile": lambda: profiled(bench),
        "training": lambda: training_table(bench),
        "losses": lambda: losses_agree(bench),
        "fp32": lambda: exact_texts(bench),
    }
    for name in options.tables.split(","):
        tables[name]()
        print(f"{name} done after {time.perf_counter() - started:.0f} s", flush=True)
        if options.into:
            options.into.write_text("\n".join(map(json.dumps, bench.lines)) + "\n")


if __name__ == "__main__":
    main()
