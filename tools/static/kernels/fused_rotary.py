"""Rotary positions in three kernels, where architectures write them out as five."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch

NAME = "apply_rotary_pos_emb"

# Models of one architecture share its code, and may be used by several threads: one may train while another decodes.
_lock = Lock()
_users: Counter[Any] = Counter()
_originals: dict[Any, Any] = {}


class FusedRotary:
    """The functions of a model's own code that turn queries and keys by halves; each is tried out once."""

    def __init__(self, model: torch.nn.Module) -> None:
        codes = {sys.modules.get(type(module).__module__) for module in model.modules()}
        self._codes = [code for code in codes if _is_plain(getattr(code, NAME, None))]

    @contextmanager
    def active(self) -> Iterator[None]:
        """They are replaced, meanwhile."""
        with _lock:
            for code in self._codes:
                if not _users[code]:
                    _originals[code] = getattr(code, NAME)
                    setattr(code, NAME, turned)
                _users[code] += 1
        try:
            yield
        finally:
            with _lock:
                for code in self._codes:
                    _users[code] -= 1
                    if not _users[code]:
                        setattr(code, NAME, _originals.pop(code))


def turned(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, unsqueeze_dim: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries [B, H, T, D] and keys [B, K, T, D], turned by cosines and sines [B, T, R].

    Of each head the first R ≤ D dimensions are turned, as architectures with partial rotary positions have it.
    """
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    H, K = q.shape[1], k.shape[1]
    has_gradient = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad)  # `as_strided` loses that of k
    if unsqueeze_dim == 1 and not has_gradient and _adjacent(q, k):
        both = _turned(q.as_strided((q.shape[0], H + K, *q.shape[2:]), q.stride()), cos, sin)
        return both[:, :H], both[:, H:]
    return _turned(q, cos, sin), _turned(k, cos, sin)


def _adjacent(q: torch.Tensor, k: torch.Tensor) -> bool:
    """Whether the heads of the keys follow those of the queries in memory, as after one product for both."""
    same = q.stride() == k.stride() and q.dtype == k.dtype
    one_memory = q.untyped_storage().data_ptr() == k.untyped_storage().data_ptr()
    return same and one_memory and k.storage_offset() == q.storage_offset() + q.shape[1] * q.stride(1)


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    R = cos.shape[-1]
    if x.shape[-1] > R:
        return torch.cat([_turned(x[..., :R], cos, sin), x[..., R:]], dim=-1)
    half = R // 2
    output = x * cos
    output[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    output[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return output


def _is_plain(function: Any) -> bool:
    """Whether a function gives what ours gives, on random input."""
    if function is None:
        return False
    noise = torch.Generator().manual_seed(0)
    q, k, cos, sin = (
        torch.randn(*sizes, generator=noise) for sizes in ((1, 4, 5, 8), (1, 2, 5, 8), (1, 5, 8), (1, 5, 8))
    )
    try:
        wanted = function(q, k, cos, sin)
    except (TypeError, RuntimeError, ValueError):
        return False
    if not isinstance(wanted, tuple) or len(wanted) != 2:
        return False
    return all(torch.allclose(a, b, atol=1e-5) for a, b in zip(wanted, turned(q, k, cos, sin), strict=True))
