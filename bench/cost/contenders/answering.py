"""Contenders at answering: ours, `model.generate` in padded batches, and the transformers pipeline."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel, get_peft_model

from agent.records.examples import Example, Prompt
from bench.cost.contenders.training import SEED, SETTINGS
from bench.cost.inputs import Loaded, Rows
from bench.cost.records import AnswerCell
from tools.model.backbone import Backbone
from tools.model.chat_template import Renderer
from tools.training.lora_config import lora_config

ADAPTER = "bench"
SPREAD = 0.005  # of the adapter's random weights: enough to change answers, too little to spoil them
WARM_UP = Example(name="", question="?", answer="")

Answerer = Callable[[Loaded, Rows, AnswerCell, Path], tuple[list[str], float]]
"""The texts in the order of the rows, without the ids that end them, and the seconds for all rows.

The adapter, where the cell wants one, is in the folder of the last argument.
"""


def ours(loaded: Loaded, rows: Rows, cell: AnswerCell, adapters: Path) -> tuple[list[str], float]:
    """tools.model.backbone, as a run uses it."""
    backbone = Backbone(
        loaded.model, loaded.tokenizer, name="bench", locate=adapters.joinpath, batch_size=cell.batch_size
    )
    backbone.generate(Prompt(), [WARM_UP], adapter=None, max_new_tokens=2)
    start = loaded.now()
    adapter = ADAPTER if cell.adapter else None
    texts, _ = backbone.generate(rows.prompt, rows.examples, adapter=adapter, max_new_tokens=cell.new)
    return [text or "" for text in texts], loaded.now() - start


def generate(loaded: Loaded, rows: Rows, cell: AnswerCell, adapters: Path) -> tuple[list[str], float]:
    """Batches in the order of the rows, padded on the left."""
    return _generate(loaded, rows, cell, adapters, range(len(rows.tokens)), merge=False)


def generate_sorted(loaded: Loaded, rows: Rows, cell: AnswerCell, adapters: Path) -> tuple[list[str], float]:
    """The careful way: rows sorted by length, the adapter merged into the weights."""
    order = sorted(range(len(rows.tokens)), key=lambda index: len(rows.tokens[index].prompt))
    return _generate(loaded, rows, cell, adapters, order, merge=True)


def pipeline(loaded: Loaded, rows: Rows, cell: AnswerCell, adapters: Path) -> tuple[list[str], float]:
    """transformers' text-generation pipeline, batched."""
    render = Renderer(loaded.tokenizer)
    texts = [render.text(rows.prompt, example) for example in rows.examples]
    tokenizer = loaded.tokenizer
    tokenizer.padding_side, tokenizer.pad_token = "left", tokenizer.pad_token or tokenizer.eos_token
    with _model(loaded, cell, adapters) as model:
        make: Any = transformers.pipeline
        pipe = make("text-generation", model=model, tokenizer=tokenizer)
        settings = {"do_sample": False, "return_full_text": False, "eos_token_id": ends(loaded)}
        settings |= {"add_special_tokens": not tokenizer.chat_template, "batch_size": cell.batch_size}
        pipe(["?"], max_new_tokens=2, **settings)
        start = loaded.now()
        answers = pipe(texts, max_new_tokens=cell.new, **settings)
        seconds = loaded.now() - start
    return [answer[0]["generated_text"].strip() for answer in answers], seconds


def _generate(
    loaded: Loaded, rows: Rows, cell: AnswerCell, adapters: Path, order: Sequence[int], merge: bool
) -> tuple[list[str], float]:
    texts = [""] * len(rows.tokens)
    with _model(loaded, cell, adapters) as model, torch.inference_mode():
        padded_answers(loaded, model, [Renderer(loaded.tokenizer).prompt_ids(Prompt(), WARM_UP)], 2)
        start = loaded.now()
        if merge and cell.adapter:
            model.merge_adapter()
        for first in range(0, len(order), cell.batch_size):
            indices = order[first : first + cell.batch_size]
            answers = padded_answers(loaded, model, [rows.tokens[index].prompt for index in indices], cell.new)
            for index, text in zip(indices, answers, strict=True):
                texts[index] = text
    return texts, loaded.now() - start


def padded_answers(loaded: Loaded, model: Any, prompts: Sequence[list[int]], new: int) -> list[str]:
    """Greedy answers of a batch that is padded on the left to [B, T]."""
    longest = max(map(len, prompts))
    stop = ends(loaded)
    ids = torch.tensor([[stop[0]] * (longest - len(row)) + row for row in prompts])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts])
    output = model.generate(
        input_ids=ids.to(loaded.model.device), attention_mask=mask.to(loaded.model.device), do_sample=False,
        max_new_tokens=new, eos_token_id=stop, pad_token_id=stop[0],
    )[:, longest:]  # fmt: skip
    render = Renderer(loaded.tokenizer)
    rows = (itertools.takewhile(lambda id: id not in stop, row) for row in output.tolist())
    return [render.text_of(list(row)) for row in rows]


def ends(loaded: Loaded) -> list[int]:
    """Ids that end an answer."""
    named = loaded.model.generation_config.eos_token_id if loaded.model.generation_config else None
    named = named if isinstance(named, list) else [named]
    return sorted({Renderer(loaded.tokenizer).end, *(id for id in named if id is not None)})


@contextmanager
def _model(loaded: Loaded, cell: AnswerCell, adapters: Path) -> Iterator[Any]:
    model: Any = loaded.model
    if cell.adapter:
        model = PeftModel.from_pretrained(model, str(adapters / ADAPTER))
    yield model.eval()


def save_adapter(loaded: Loaded, adapters: Path) -> None:
    """A LoRA with small random weights, as peft saves it; the model is left as it was."""
    torch.manual_seed(SEED)
    model = get_peft_model(loaded.model, lora_config(SETTINGS.rank, SETTINGS))
    for weight in (weight for weight in model.parameters() if weight.requires_grad):
        torch.nn.init.normal_(weight, std=SPREAD)
    model.save_pretrained(str(adapters / ADAPTER))
    model.unload()
