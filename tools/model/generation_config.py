"""What a model's generation_config demands of greedy answers: penalties, forbidden tokens, forced ones.

`model.generate` applies them wherever the model is deployed, so they apply to what is measured, too. Sampling and
search are left out on purpose: a row must get the same answer every time.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel

# transformers makes logits processors of these; each looks at its own row only.
HONOURED = (
    "repetition_penalty", "encoder_repetition_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size",
    "bad_words_ids", "sequence_bias", "suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id",
    "forced_eos_token_id", "min_length", "min_new_tokens", "exponential_decay_length_penalty",
)  # fmt: skip
SAMPLING = (
    "do_sample", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff",
    "num_beams", "penalty_alpha", "dola_layers", "guidance_scale", "watermarking_config", "stop_strings", "max_time",
)  # fmt: skip
NEUTRAL: dict[str, Any] = {
    "repetition_penalty": 1.0, "encoder_repetition_penalty": 1.0, "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0, "min_length": 0, "min_new_tokens": 0, "do_sample": False, "temperature": 1.0,
    "top_k": 50, "top_p": 1.0, "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "num_beams": 1,
    "guidance_scale": 1.0,
}  # fmt: skip


class Constraints:
    """The logits processors of each row in a batch, as `model.generate` would make them for this row alone.

    Args:
        model: the base model, with its generation config.
        prompts: ids of each row.
        ends: ids that end an answer.
    """

    def __init__(
        self, model: PreTrainedModel, prompts: Sequence[list[int]], ends: Sequence[int], max_new_tokens: int
    ) -> None:
        self._prompts = prompts
        self._rows: list[LogitsProcessorList] = []
        if named_settings(model.generation_config, HONOURED):
            self._rows = [_processors(model, prompt, ends, max_new_tokens) for prompt in prompts]

    @property
    def active(self) -> bool:
        """Whether they change anything."""
        return bool(self._rows)

    def __call__(self, rows: Sequence[int], completions: Sequence[list[int]], logits: torch.Tensor) -> torch.Tensor:
        """Constrained logits [B, V], in fp32; the logits themselves where there are no constraints.

        Args:
            rows: the place of each row in the batch: [B].
            completions: of every place in the batch, the new tokens so far.
            logits: [B, V] of the rows' next token.
        """
        if not self._rows:
            return logits
        lines = [torch.tensor([self._prompts[row] + completions[row]], device=logits.device) for row in rows]
        scores = logits.to(torch.float32, copy=True)  # like `generate`; some processors write into them
        return torch.cat(
            [
                self._rows[row](line, scores[place, None])  # type: ignore[arg-type]
                for place, (row, line) in enumerate(zip(rows, lines, strict=True))
            ]
        )


def named_settings(config: GenerationConfig | None, names: Sequence[str]) -> list[str]:
    """Those of the settings that a generation config has at a value that changes something."""
    return [name for name in names if (value := getattr(config, name, None)) is not None and value != NEUTRAL.get(name)]


def remark(model: PreTrainedModel) -> str | None:
    """A sentence about the settings that answers are measured without; None where there are none."""
    left_out = named_settings(model.generation_config, SAMPLING)
    if not left_out:
        return None
    return (
        f"Answers are measured greedily: the model's generation_config also names {', '.join(left_out)}, which is left "
        "out, so that a row has the same answer whenever it is asked."
    )


@contextmanager
def without_settings(model: PreTrainedModel) -> Iterator[None]:
    """Within the block, `model.generate` applies none of these settings: those honoured are in `Constraints`."""
    config = model.generation_config
    model.generation_config = _cleared(config, (*HONOURED, *SAMPLING))
    try:
        yield
    finally:
        model.generation_config = config


def _cleared(config: GenerationConfig, names: Sequence[str]) -> GenerationConfig:
    cleared = copy.deepcopy(config)
    for name in names:
        setattr(cleared, name, None)
    return cleared


def _processors(model: Any, prompt: list[int], ends: Sequence[int], max_new_tokens: int) -> LogitsProcessorList:
    """Of one row. The model is untyped, as it must be a GenerationMixin, whose private methods make them."""
    config = _cleared(model.generation_config, SAMPLING)
    config.max_length = len(prompt) + max_new_tokens
    config.eos_token_id = list(ends)
    model._prepare_special_tokens(config, device=model.device)
    ids = torch.tensor([prompt], device=model.device)
    processors: LogitsProcessorList = model._get_logits_processor(
        config, input_ids_seq_length=len(prompt), encoder_input_ids=ids, device=model.device
    )
    return processors
