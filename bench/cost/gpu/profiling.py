"""Launches and kernels of one warm call of 64 answers."""

import time
from collections import Counter
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from bench.cost.gpu.answers import PREFIXES, ROWS
from bench.cost.gpu.models import Bench
from bench.cost.inputs import question_rows
from bench.cost.records import AnswerCell
from tools.model.backbone import Backbone


def profiled(bench: Bench) -> None:
    """How often the host launches and what the device does, in all and for each layer and step."""
    cell = AnswerCell(prefix=PREFIXES[-1], rows=ROWS, new=48)
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
