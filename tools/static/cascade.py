"""Attention of one token per row over a shared prefix and the row's own tokens, by flash attention's kernels.

Two calls, one over each part; their outputs are joined by the logarithms of the sums of their exponentials. The prefix
is read once for all rows. Lengths stay on the device, so a captured step serves prefixes and rows of every length.
"""

import torch

from tools.packed.attention import AttentionOptions, KeysValues

HALF = (torch.bfloat16, torch.float16)


class Cascade:
    """For B rows with T slots each.

    Args:
        B, T, P: sizes of the buffers: rows, own slots of a row, prefix slots.
        longest: what the kernels are told of the queries of a row. For 1 they take the heads of a group together, which
            is quicker; not every version returns the sums in order then.
    """

    def __init__(self, B: int, T: int, P: int, device: torch.device, longest: int = 1) -> None:
        self._longest = longest
        self._T, self._P = T, P
        self._all_rows = torch.tensor([0, B], dtype=torch.int32, device=device)
        self._each_row = torch.arange(B + 1, dtype=torch.int32, device=device)
        self._all_slots = torch.tensor([0, P], dtype=torch.int32, device=device)
        self._each_slots = self._each_row * T
        self._prefix_length = torch.zeros_like(self._all_rows[:1])
        self._lengths = torch.ones_like(self._each_row[:B])

    def begin(self, prefix_length: torch.Tensor, slots: torch.Tensor) -> None:
        """Take the lengths of a step: of the prefix [1], and the slot of the newest token of each row [B]."""
        self._prefix_length.copy_(prefix_length)
        torch.add(slots, 1, out=self._lengths)

    def takes(self, options: AttentionOptions) -> bool:
        """Whether a layer attends in the way that the kernels know."""
        return options.window is None and options.softcap is None

    def __call__(self, query: torch.Tensor, prefix: KeysValues | None, own: KeysValues, scaling: float) -> torch.Tensor:
        """Outputs [B, H, D].

        Args:
            query: [B, H, D].
            prefix: keys and values, each [P, K, D]; None: rows share nothing.
            own: keys and values, each [B, T, K, D].
        """
        key, value = (tensor.flatten(0, 1) for tensor in own)
        near, near_sums = _flash(
            query, key, value, self._each_row, self._each_slots, (1, self._T), self._lengths, scaling
        )
        if prefix is None:
            return near
        sizes = (len(query), self._P)
        far, far_sums = _flash(query, *prefix, self._all_rows, self._all_slots, sizes, self._prefix_length, scaling)
        share = torch.sigmoid(near_sums - far_sums).t()[..., None]  # [B, H, 1] of the own part
        return torch.lerp(far, near, share.to(near.dtype))


def _flash(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, query_starts: torch.Tensor, key_starts: torch.Tensor,
    longest: tuple[int, int], key_lengths: torch.Tensor, scaling: float,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Outputs [tokens, H, D], and the logarithm of each one's sum of exponentials [H, tokens]."""
    output, sums, *_ = torch.ops.aten._flash_attention_forward(
        query, key, value, query_starts, key_starts, *longest, 0.0, False, False, scale=scaling, seqused_k=key_lengths
    )
    return output, sums


def longest_that_works(H: int, K: int, D: int, dtype: torch.dtype, device: torch.device) -> int | None:
    """`longest` of a cascade that gives what plain products give on random rows; None: there are no such kernels."""
    if device.type != "cuda" or dtype not in HALF or D % 8 or D > 256:
        return None
    B, T, P = 5, 64, 128
    noise = torch.Generator(device).manual_seed(0)
    query, *tensors = (
        torch.randn(*sizes, D, generator=noise, device=device).to(dtype)
        for sizes in ((B, H), (P, K), (P, K), (B, T, K), (B, T, K))
    )
    slots = torch.tensor([0, 7, 40, 63, 21], device=device)
    in_prefix = torch.arange(P, device=device).expand(B, P) < 100
    seen = torch.cat([in_prefix, torch.arange(T, device=device) <= slots[:, None]], 1)
    key, value = (
        torch.cat([shared.expand(B, P, K, D), own], 1).repeat_interleave(H // K, 2).transpose(1, 2).float()
        for shared, own in ((tensors[0], tensors[2]), (tensors[1], tensors[3]))
    )
    wanted = torch.nn.functional.scaled_dot_product_attention(
        query[:, :, None].float(), key, value, attn_mask=seen[:, None, None]
    )[:, :, 0]
    for longest in (1, 2):
        cascade = Cascade(B, T, P, device, longest)
        cascade.begin(torch.tensor([100], device=device), slots)
        try:
            output = cascade(query, (tensors[0], tensors[1]), (tensors[2], tensors[3]), D**-0.5).float()
        except (RuntimeError, TypeError):
            return None
        if (output - wanted).abs().max() < 0.03:
            return longest
    return None
