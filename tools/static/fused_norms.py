"""Root-mean-square norms by torch's one kernel, where an architecture writes them out as six."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.nn.functional import rms_norm


@contextmanager
def fused_norms(model: torch.nn.Module) -> Iterator[None]:
    """The norms of a model as one kernel each, meanwhile. Those that compute something else stay as they are."""
    replaced = []
    alike: dict[type, bool] = {}
    try:
        for module in model.modules():
            kind = type(module)
            if not kind.__name__.endswith("RMSNorm") or "forward" in vars(module):
                continue
            if kind not in alike:
                alike[kind] = _is_plain(module)
            if alike[kind]:
                module.forward = _fused(module)
                replaced.append(module)
        yield
    finally:
        for module in replaced:
            del module.forward


def _fused(norm: Any) -> Any:
    return partial(rms_norm, normalized_shape=norm.weight.shape, weight=norm.weight, eps=norm.variance_epsilon)


def _is_plain(norm: Any) -> bool:
    """Whether it gives what torch's kernel gives, on random input."""
    weight, eps = getattr(norm, "weight", None), getattr(norm, "variance_epsilon", None)
    if not isinstance(weight, torch.Tensor) or weight.dim() != 1 or not isinstance(eps, float):
        return False
    noise = torch.Generator().manual_seed(0)
    sample = torch.randn(4, len(weight), generator=noise).to(weight)
    with torch.no_grad():
        wanted, fused = norm(sample).float(), _fused(norm)(sample).float()
    tolerance = 1e-5 if weight.dtype == torch.float32 else 2e-2
    return bool((wanted - fused).abs().max() <= tolerance * wanted.abs().max())
