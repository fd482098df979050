"""Answers to the questions of one prompt, beside transformers' ways."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from bench.cost.contenders import answering
from bench.cost.gpu.models import Bench, same
from bench.cost.inputs import Loaded, Rows, question_rows
from bench.cost.records import AnswerCell
from tools.model.backbone import Backbone
from tools.model.chat_template import Renderer

PREFIXES = (256, 1024)
ROWS = 64
BLOCK = 256  # tokens of a block of the cache

Laps = tuple[list[str], list[float]]
"""The texts, and the seconds of every call."""


def answers_table(bench: Bench, compiled: bool) -> None:
    """Seconds of all answers: the first call, and the best of the later ones."""
    for prefix in PREFIXES:
        for adapter in (False, True):
            cell = AnswerCell(prefix=prefix, rows=ROWS, new=48, adapter=adapter, batch_size=ROWS)
            with tempfile.TemporaryDirectory() as folder:
                if adapter:
                    answering.save_adapter(bench.loaded(), Path(folder))
                answers_of_cell(bench, cell, Path(folder), compiled)


def answers_of_cell(bench: Bench, cell: AnswerCell, adapters: Path, compiled: bool) -> None:
    """Contenders one after the other."""
    rows = question_rows(bench.tokenizer, cell)
    contenders: dict[str, Callable[[Bench, Rows, AnswerCell, Path], Laps]] = {
        "ours": ours, "generate": careful_generate, "generate_batch": continuous_batching,
    }  # fmt: skip
    if compiled:
        contenders["compiled"] = partial(careful_generate, compiled=True)
    texts: dict[str, list[str]] = {}

    def measure(name: str) -> None:
        texts[name], seconds = contenders[name](bench, rows, cell, adapters)
        agree = same(texts["ours"], texts[name]) if "ours" in texts else None
        bench.add(
            "answers", shared=rows.shared, adapter=cell.adapter, who=name, first=round(seconds[0], 3),
            best=round(min(seconds[1:]), 4), laps=[round(lap, 4) for lap in seconds[1:]], same_as_ours=agree,
        )  # fmt: skip

    for name in contenders:
        adapter = " with an adapter" if cell.adapter else ""
        bench.peer(f"answers by {name}, {rows.shared} shared{adapter}", partial(measure, name))


def ours(bench: Bench, rows: Rows, cell: AnswerCell, adapters: Path) -> Laps:
    """tools.model.backbone, as a run uses it; rendering and tokenizing the prompts counts."""
    loaded = bench.loaded()
    backbone = Backbone(loaded.model, loaded.tokenizer, name="bench", locate=adapters.joinpath)
    adapter = answering.ADAPTER if cell.adapter else None
    seconds = []
    for _ in range(1 + bench.laps):
        start = loaded.now()
        texts, _ = backbone.generate(rows.prompt, rows.examples, adapter=adapter, max_new_tokens=cell.new)
        seconds.append(loaded.now() - start)
        backbone._kept.prefix_key = None  # the prefix is read anew each time, as where prompts are compared
    return [text or "" for text in texts], seconds


def merged(loaded: Loaded, cell: AnswerCell, adapters: Path) -> Any:
    """The model, into which the cell's adapter is merged."""
    from peft import PeftModel

    if not cell.adapter:
        return loaded.model
    start = loaded.now()
    model = PeftModel.from_pretrained(loaded.model, str(adapters / answering.ADAPTER)).merge_and_unload()
    print("loading and merging took", round(loaded.now() - start, 3), flush=True)
    return model


def careful_generate(bench: Bench, rows: Rows, cell: AnswerCell, adapters: Path, compiled: bool = False) -> Laps:
    """`generate` over rows sorted by length, merged before the first call; token ids are given."""
    loaded = bench.loaded()
    model = merged(loaded, cell, adapters)
    if compiled:
        model.generation_config.cache_implementation = "static"
    order = sorted(range(len(rows.tokens)), key=lambda index: len(rows.tokens[index].prompt))
    texts, seconds = [""] * len(order), []
    for _ in range(1 + bench.laps):
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


def continuous_batching(bench: Bench, rows: Rows, cell: AnswerCell, adapters: Path) -> Laps:
    """transformers' `generate_batch`, merged before the first call; its manager and what it compiled are kept.

    Raises:
        RuntimeError: some rows got no answer; the library only logs that.
    """
    loaded = bench.loaded()
    model, stop = merged(loaded, cell, adapters), answering.ends(loaded)
    config = transformers.GenerationConfig(
        do_sample=False, max_new_tokens=cell.new, eos_token_id=stop, pad_token_id=stop[0]
    )
    prompts, seconds = [row.prompt for row in rows.tokens], []
    cache = None
    if loaded.model.device.type != "cuda":  # it takes most of what is free, of which a CPU may have too much
        blocks = sum(-(-(len(prompt) + cell.new) // BLOCK) for prompt in prompts)
        cache = ContinuousBatchingConfig(num_blocks=2 * blocks, max_batch_tokens=4 * BLOCK, page_size=BLOCK)
    try:
        for _ in range(1 + bench.laps):
            start = loaded.now()
            found = model.generate_batch(
                inputs=prompts, generation_config=config, continuous_batching_config=cache, persistent_manager=True
            )
            seconds.append(loaded.now() - start)
    finally:
        model.destroy_cached_continuous_batching_manager()
    if len(found) < len(prompts) or any(answer.error for answer in found.values()):
        raise RuntimeError("generate_batch left rows unanswered")
    render = Renderer(loaded.tokenizer)
    ids = [[token for token in answer.generated_tokens if token not in stop] for answer in found.values()]
    return [render.text_of(tokens) for tokens in ids], seconds


def exact_texts(bench: Bench) -> None:
    """In fp32, where only equal logits can make a difference: fewer rows, ours beside `generate`."""
    exact = replace(bench, master=bench.loaded().model.float())
    cell = AnswerCell(prefix=256, rows=16, new=24, adapter=True, batch_size=16)
    rows = question_rows(bench.tokenizer, cell)
    with tempfile.TemporaryDirectory() as folder:
        answering.save_adapter(exact.loaded(), Path(folder))
        texts, seconds = ours(exact, rows, cell, Path(folder))
        plain, plain_seconds = careful_generate(exact, rows, cell, Path(folder))
    bench.add("fp32", same=same(texts, plain), ours=round(min(seconds), 3), generate=round(min(plain_seconds), 3))
