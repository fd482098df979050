"""The least time: what the arithmetic needs, over what this device gives in matrix products and from memory."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from bench.cost.contenders.training import SETTINGS
from bench.cost.inputs import Loaded, Rows
from bench.cost.records import AnswerCell, Floor

SQUARES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}
COPIED = {"cpu": 1 << 28, "cuda": 1 << 32}  # bytes: far beyond any cache
MOST_TOKENS = {"cpu": 1024, "cuda": 16384}  # more tokens no longer raise the rate of a product
TRIES = 3

Shapes = Counter[tuple[int, int]]
"""How often each (in_features, out_features) occurs."""


def training_floor(loaded: Loaded, rows: Rows) -> Floor:
    """The floor of an optimizer step that runs the shared prefix once; see `training_flops`."""
    flops, tokens = training_flops(loaded.model, rows)
    return _floor(loaded, flops, tokens)


def answer_floor(loaded: Loaded, rows: Rows, cell: AnswerCell) -> Floor:
    """The floor of greedy answers.

    Prompts are read once, their shared prefix only once; then all weights are read for each token of a batch.
    """
    shapes, head = _shapes(loaded.model), _head(loaded.model)
    tokens = rows.shared + sum(len(row.prompt) - rows.shared for row in rows.tokens)
    flops = 2.0 * _size(shapes) * tokens + 2.0 * head.numel() * len(rows.tokens)
    flops += 4 * _attention_width(loaded.model) * _pairs([len(row.prompt) for row in rows.tokens], rows.shared)
    batch = min(cell.batch_size, len(rows.tokens))
    weights = _size(shapes) + head.numel()
    decoding = {
        "rows": batch,
        "step_flops": 2.0 * weights * batch,
        "step_shaped": _shaped(loaded, batch, backward=False),
        "step_bytes": float(weights * head.element_size()),
    }
    return _floor(loaded, flops, tokens).model_copy(update=decoding)


def training_flops(model: Any, rows: Rows) -> tuple[float, int]:
    """FLOPs of a LoRA step that runs the shared prefix once, and the tokens that it runs.

    It is the floor of this way of computing, every layer over every token. Less would be possible: nothing uses a row's
    last token, nor the last layer's output at tokens that give no loss.

    Per token: 4 for each weight of the body (2 forward, 2 for the gradient of its input; the weight itself is frozen),
    6 for each of the adapter's, 4 for each of the head's at completion tokens only. Attention: 4 per pair of tokens
    and channel forward, twice that backward.
    """
    shapes = _shapes(model)
    tokens = rows.shared + sum(len(row) - rows.shared for row in rows.tokens)
    scored = sum(len(row.completion) for row in rows.tokens)
    adapter = SETTINGS.rank * sum((inputs + outputs) * count for (inputs, outputs), count in shapes.items())
    flops = (4 * _size(shapes) + 6 * adapter) * tokens + 4 * _head(model).numel() * scored
    return flops + 12 * _attention_width(model) * _pairs([len(row) for row in rows.tokens], rows.shared), tokens


def _floor(loaded: Loaded, flops: float, tokens: int) -> Floor:
    device = loaded.model.device.type
    like = _head(loaded.model)
    return Floor(
        flops=flops,
        shaped=_shaped(loaded, min(tokens, MOST_TOKENS[device])),
        square=max(_product_rate(loaded, size, size, size, like) for size in SQUARES[device]),
        bandwidth=_bandwidth(loaded, COPIED[device]),
    )


def _shaped(loaded: Loaded, tokens: int, backward: bool = True) -> float:
    """FLOP/s over the body's matrix products with so many tokens: forward and, if wanted, of the input's gradient."""
    like = _head(loaded.model)
    flops, seconds = 0.0, 0.0
    for (inputs, outputs), count in _shapes(loaded.model).items():
        for inner, outer in ((inputs, outputs), (outputs, inputs))[: 1 + backward]:
            rate = _product_rate(loaded, tokens, inner, outer, like)
            flops += 2.0 * tokens * inner * outer * count
            seconds += 2.0 * tokens * inner * outer * count / rate
    return flops / seconds


def _product_rate(loaded: Loaded, rows: int, inner: int, outer: int, like: torch.Tensor) -> float:
    """FLOP/s of [rows, inner] @ [inner, outer], in the type and on the device of `like`."""
    left = torch.randn(rows, inner, device=like.device).to(like.dtype)
    right = torch.randn(outer, inner, device=like.device).to(like.dtype)
    out = torch.empty(rows, outer, device=like.device, dtype=like.dtype)
    return 2.0 * rows * inner * outer / _fastest(loaded, lambda: torch.mm(left, right.T, out=out))


def _bandwidth(loaded: Loaded, size: int) -> float:
    """Bytes read and written per second by a copy."""
    source = torch.zeros(size, dtype=torch.uint8, device=loaded.model.device)
    target = torch.ones_like(source)
    return 2.0 * size / _fastest(loaded, lambda: target.copy_(source))


def _fastest(loaded: Loaded, work: Callable[[], object]) -> float:
    """Seconds of the fastest of a few tries, each of many runs where a single run is too short to time."""
    work()
    start = loaded.now()
    work()
    runs = max(1, min(1000, round(0.02 / max(loaded.now() - start, 1e-7))))
    times = []
    for _ in range(TRIES):
        start = loaded.now()
        for _ in range(runs):
            work()
        times.append((loaded.now() - start) / runs)
    return min(times)


def _shapes(model: Any) -> Shapes:
    """How often each (in, out) occurs among the linear layers of the body."""
    layers = (module for module in model.base_model.modules() if isinstance(module, nn.Linear))
    return Counter((layer.in_features, layer.out_features) for layer in layers)


def _size(shapes: Shapes) -> int:
    return sum(inputs * outputs * count for (inputs, outputs), count in shapes.items())


def _head(model: Any) -> torch.Tensor:
    """Weights of the output layer: [V, hidden size]."""
    weight: torch.Tensor = model.get_output_embeddings().weight
    return weight


def _attention_width(model: Any) -> int:
    """Channels of all heads of all layers together."""
    config = model.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(width * config.num_attention_heads * config.num_hidden_layers)


def _pairs(lengths: Sequence[int], shared: int) -> float:
    """Pairs of a token and a token that it attends to; pairs within the shared prefix count once."""
    return shared**2 / 2 + sum(length**2 / 2 - shared**2 / 2 for length in lengths)
