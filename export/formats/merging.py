"""The base with an adapter merged into it, by peft's own arithmetic, and proof that it answers as before."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from agent.errors import NesyLoraError
from tools.adapters.files import check_files, strip

TIED = ("lm_head", "embed_tokens", "wte", "embed_out")
TOLERANCE = 0.02  # of the largest logit's spread: rounding in bf16 stays below, a lost or doubled part does not


def merge(model: PreTrainedModel, adapter: Path, probe: list[int]) -> PreTrainedModel:
    """The model with the adapter's weights added to its own. The model itself is used up.

    Args:
        probe: token ids of a prompt, on which both are compared.

    Raises:
        BadInput: the adapter cannot be used.
        NesyLoraError: this kind of adapter cannot be merged, or the merged model computes otherwise.
    """
    from peft import PeftModel

    check_files(adapter)
    adapted = PeftModel.from_pretrained(model, str(adapter)).eval()
    before = _logits(adapted, probe)
    if _changes_tied_weights(adapted):
        strip(model)
        _untie(model)
        adapted = PeftModel.from_pretrained(model, str(adapter)).eval()
    try:
        merged: PreTrainedModel = adapted.merge_and_unload(safe_merge=True).eval()
    except (NotImplementedError, ValueError, AttributeError) as error:
        raise NesyLoraError(f"the adapter in {adapter} cannot be merged into its base: {error}") from error
    after = _logits(merged, probe)
    off = float((after - before).abs().max() / before.std())
    if not off < TOLERANCE:
        raise NesyLoraError(
            f"merged into its base, the adapter in {adapter} computes otherwise (logits are off by {off:.3f} of their "
            "spread): give away the adapter itself, without --merged, --gguf and --ollama"
        )
    return merged


def _logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return torch.as_tensor(model(torch.tensor([ids], device=model.device)).logits[0]).float()


def _changes_tied_weights(adapted: Any) -> bool:
    """Whether the adapter changes embeddings or head of a base that has one matrix for both."""
    if not adapted.get_base_model().config.get_text_config().tie_word_embeddings:
        return False
    names = [name for name, _ in adapted.named_parameters() if "lora" in name or "modules_to_save" in name]
    return any(f".{part}." in name for name in names for part in TIED)


def _untie(model: PreTrainedModel) -> None:
    """Give the head a matrix of its own: merged into a shared one, a change of either would change both."""
    head: Any = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    model.config.get_text_config().tie_word_embeddings = False
    model.config.tie_word_embeddings = False
