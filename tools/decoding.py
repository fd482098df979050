"""Greedy decoding of many rows from one shared prefix; finished rows leave the batch."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from tools.prefix import Batch, positions, widen


def decode(model: Any, batch: Batch, cache: DynamicCache, ends: Sequence[int], max_new_tokens: int) -> list[list[int]]:
    """The greedy continuation of every row of `batch`, without its end token.

    Token for token what `model.generate(do_sample=False)` gives on the padded rows, except where two
    logits are equal to the last bit of rounding.

    Args:
        batch: rows with empty completions.
        cache: the one-row cache of `batch.prefix`.
        ends: ids that end a row.
    """
    rows = len(batch.own)
    texts: list[list[int]] = [[] for _ in range(rows)]
    alive = list(range(rows))
    mask, cache = batch.mask, widen(cache, rows)
    ids, where = batch.own, positions(mask)[:, len(batch.prefix) :]
    stop = torch.tensor(list(ends), device=ids.device)
    for left in range(max_new_tokens, 0, -1):
        logits = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=where,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        token = logits.argmax(dim=-1)
        going = ~torch.isin(token, stop)
        for row, value, goes in zip(alive, token.tolist(), going.tolist(), strict=True):
            if goes:
                texts[row].append(value)
        if left == 1 or not going.any():
            break
        if not going.all():
            keep = going.nonzero().flatten()
            cache.batch_select_indices(keep)
            alive = [alive[i] for i in keep.tolist()]
            token, mask, where = token[keep], mask[keep], where[keep]
        ids, where = token[:, None], where[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
    return texts
