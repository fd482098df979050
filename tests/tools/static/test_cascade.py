"""Attention over prefix and own tokens joined by their sums; on CPU with the kernels' arithmetic written out."""

import pytest
import torch

from tools.static.kernels import cascade
from tools.static.kernels.cascade import Cascade, longest_that_works


def flash(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, query_starts: torch.Tensor, key_starts: torch.Tensor,
    longest: tuple[int, int], key_lengths: torch.Tensor, scaling: float,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """What `_flash` gives: queries and keys of each part among themselves."""
    outputs, sums = [], []
    for part, length in enumerate(key_lengths.tolist()):
        rows = query[query_starts[part] : query_starts[part + 1]]
        slots = slice(int(key_starts[part]), int(key_starts[part]) + length)
        keys, values = (each[slots].repeat_interleave(query.shape[1] // key.shape[1], 1) for each in (key, value))
        assert length and len(rows) <= max(longest)
        scores = torch.einsum("bhd,thd->hbt", rows, keys) * scaling
        outputs.append(torch.einsum("hbt,thd->bhd", scores.softmax(-1), values))
        sums.append(scores.logsumexp(-1))
    return torch.cat(outputs), torch.cat(sums, 1)


@pytest.mark.parametrize("prefix", [0, 8, 9, 100, 128])
@pytest.mark.parametrize("H", [4, 32, 144])
def test_parts_are_joined_to_what_one_softmax_gives(prefix: int, H: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cascade, "_flash", flash)
    B, T, P, K, D = 5, 64, 128, 2, 8
    query, *tensors = (torch.randn(*sizes, D) for sizes in ((B, H), (P, K), (P, K), (B, T, K), (B, T, K)))
    slots = torch.tensor([0, 7, 40, 63, 21])
    joined = Cascade(B, T, P, H, torch.device("cpu"))
    joined.begin(torch.tensor([prefix]), slots)
    shared, own = (tensors[0], tensors[1]), (tensors[2], tensors[3])
    output = joined(query, shared if prefix else None, own, 0.3)
    for row, slot in enumerate(slots.tolist()):
        key, value = (torch.cat([shared[i][:prefix], own[i][row, : slot + 1]]) for i in (0, 1))
        wanted, _ = flash(
            query[row : row + 1], key, value, torch.tensor([0, 1]), torch.tensor([0, len(key)]), (1, 1),
            torch.tensor([len(key)]), 0.3,
        )  # fmt: skip
        assert torch.allclose(output[row], wanted[0], atol=1e-5)


def test_there_are_no_such_kernels_on_a_cpu() -> None:
    assert longest_that_works(4, 2, 8, torch.bfloat16, torch.device("cpu")) is None
