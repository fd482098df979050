"""The yardstick: one row at a time, through transformers and peft alone, with nothing shared and nothing padded."""

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


class Plain:
    """A model of its own, read from disk, with or without an adapter's weights."""

    def __init__(self, folder: Path, adapter: Path | None = None, device: torch.device | None = None) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder).to(device or "cpu").eval()
        if adapter:
            self.model = PeftModel.from_pretrained(self.model, str(adapter), is_trainable=True).eval()

    def answer(self, ids: Sequence[int], ends: Sequence[int], most: int) -> list[int]:
        """The greedy continuation, without its end token."""
        given = torch.tensor([ids], device=self.model.device)
        said = self.model.generate(
            given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=most,
            eos_token_id=list(ends), pad_token_id=2,
        )[0, len(ids) :].tolist()  # fmt: skip
        return said[:-1] if said[-1] in ends else said

    def losses(self, given: Sequence[int], scored: Sequence[int]) -> torch.Tensor:
        """NLL of each scored token, in nats: [C]. Differentiable."""
        ids = torch.tensor([[*given, *scored]], device=self.model.device)
        chances = self.model(input_ids=ids).logits[0, :-1].float().log_softmax(dim=-1)[-len(scored) :]
        return -chances.gather(1, ids[0, -len(scored) :, None])[:, 0]
