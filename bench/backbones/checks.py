"""Whether a model folder is what it should be: its template, its arithmetic, its answers."""

from pathlib import Path

import gguf
import torch

from agent.errors import BadInput, NesyLoraError
from agent.records.examples import Demo, Example, Prompt
from tools.model.backbone import Backbone
from tools.model.loading import load_model
from tools.packed.padding import padded_logits

CLOSE = 1e-4  # relative difference of packed and padded losses
REPEATED = 30  # demonstrations, for rows longer than the sliding windows that some models have
PROMPT = Prompt(
    system="Answer the question.",
    demos=(
        Demo(question="What is the capital of Italy?", answer="Rome"),
        Demo(question="What is the plural of mouse?", answer="mice"),
    ),
)
ASKED = {
    "What is the capital of France?": "Paris",
    "What colour is the sky on a clear day?": "blue",
    "What is the plural of dog?": "dogs",
}


def open_backbone(model: str) -> Backbone:
    """The model of a folder, on the CPU in fp32, without adapters. Raises BadInput where it cannot be loaded."""
    loaded, tokenizer = load_model(model, device="cpu", dtype="float32", progress=lambda *_: None)
    return Backbone(loaded, tokenizer, name=model, locate=lambda adapter: Path(adapter))


def check_template(backbone: Backbone, weights: Path) -> str:
    """A sentence on the chat template. Raises NesyLoraError where it is not the one in the GGUF file."""
    field = gguf.GGUFReader(weights).get_field("tokenizer.chat_template")
    wanted = field.contents() if field else None
    if backbone.render.tokenizer.chat_template != wanted:
        raise NesyLoraError(f"The chat template of {backbone.name} is not the one in {weights}.")
    return "the chat template is the file's" if wanted else "a base model: it has no chat template"


def check_losses(backbone: Backbone) -> str:
    """A sentence on packed rows. Raises NesyLoraError where their losses are not those of padded rows."""
    if not backbone.packs:
        return "rows cannot be packed in this model, and are padded"
    prompt = PROMPT.model_copy(update={"demos": PROMPT.demos * REPEATED})
    rows = [backbone.render.scored_row(prompt, example, "", example.answer) for example in _examples()]
    with backbone.using(None) as model, torch.inference_mode():
        packed = backbone.losses(model, rows)
        logits = padded_logits(model, rows, backbone.render.end, backbone.device)
        wanted = torch.tensor([token for row in rows for token in row.completion], device=backbone.device)
        padded = torch.nn.functional.cross_entropy(logits.float(), wanted, reduction="none")
    apart = float((packed - padded).abs().max() / padded.abs().max())
    if not apart < CLOSE:
        raise NesyLoraError(f"Losses of packed and padded rows are {apart:.1e} apart in {backbone.name}.")
    return f"losses of packed and padded rows of {len(rows[0])} tokens are {apart:.0e} apart"


def answers(backbone: Backbone) -> list[str]:
    """Questions with what the model answers after two demonstrations, for people to judge."""
    found, _ = backbone.generate(PROMPT, _examples(), adapter=None, max_new_tokens=8)
    return [f"{question} {text!r}" for question, text in zip(ASKED, found, strict=True)]


def check(model: str, weights: Path | None) -> list[str]:
    """Sentences on all of these.

    Args:
        weights: the GGUF file that the model was made of; None: not to be compared.

    Raises:
        BadInput: the model cannot be loaded.
        NesyLoraError: it is not what it should be.
    """
    backbone = open_backbone(model)
    if not backbone.render.tokenizer.is_fast:
        raise BadInput(f"{model} has no fast tokenizer.")
    template = [check_template(backbone, weights)] if weights else []
    return [*template, check_losses(backbone), *answers(backbone)]


def _examples() -> list[Example]:
    return [
        Example(name=f"asked:{place}", question=question, answer=answer)
        for place, (question, answer) in enumerate(ASKED.items())
    ]
