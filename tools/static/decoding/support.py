"""Which models can be decoded in static steps: tried out on two rows."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from tools.model.chat_template import TokenRow
from tools.packed.decoding import PrefixedRows, run_prefix, run_prompts
from tools.packed.packing import pack, pack_logits
from tools.packed.prefix_cache import PrefixCache
from tools.packed.support import UNSUPPORTED
from tools.static.decoding.batch import StaticBatch
from tools.static.decoding.decoder import StaticDecoder

PROBE = [TokenRow([3, 5, 4, 6], [7, 9]), TokenRow([3, 5, 4, 8, 9], [10, 11])]
SHARED = 3  # tokens with which both begin


def static_steps_work(model: Any, fused: Callable[[], AbstractContextManager[None]] = nullcontext) -> bool:
    """Whether a step, and on CUDA a captured one, gives the logits that the packed pass over all the tokens gives.

    Args:
        fused: within it the model runs with fused kernels, as it will when it answers. The packed pass runs without.
    """
    decoder = StaticDecoder(model, careful=True)
    with torch.inference_mode():
        at_once = pack_logits(model, pack(PROBE, model.device))  # two tokens of each row are scored
        wanted = at_once[1::2].float()  # [2, V]
        try:
            with fused():
                prefix = run_prefix(model, PrefixCache(), PROBE[0].prompt[:SHARED], model.device)
                rows = PrefixedRows(prefix, [TokenRow(row.prompt, []) for row in PROBE])
                prompts, _ = run_prompts(model, [rows], model.device)
                tokens = torch.tensor([row.completion[0] for row in PROBE], device=model.device)
                for _ in range(2):  # the first step of a batch runs as it is, the second is captured
                    batch = decoder.load(prompts, tokens, [0, 1], 4)
                    decoder.advance(batch)
                    if not _agrees(batch, wanted, model.dtype):
                        return False
        except UNSUPPORTED:
            return False
    return True


def _agrees(batch: StaticBatch, wanted: torch.Tensor, dtype: torch.dtype) -> bool:
    tolerance = 1e-3 if dtype == torch.float32 else 5e-2
    difference = batch.logits[: len(wanted)].float() - wanted
    return bool(difference.abs().max() <= tolerance * wanted.abs().max())
