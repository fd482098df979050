"""Attention of one token per row over a shared prefix and the row's own tokens, by flash attention's kernels.

Two calls, one over each part; their outputs are joined by the logarithms of the sums of their exponentials. The prefix
is read once for all rows. Lengths stay on the device, so a captured step serves prefixes and rows of every length.
"""

import torch

from tools.packed.attention import AttentionOptions, KeysValues

HALF = (torch.bfloat16, torch.float16)
LEAST_PREFIX = 8  # tokens of a prefix: no part of it may be empty
BLOCKS = 132  # that keep a large card busy


class Cascade:
    """For B rows with T slots each.

    Args:
        B, T, P, H: rows, own slots of a row, prefix slots, heads of a query.
        longest: the most queries of a row, as the kernels are told; there is always one. For 1 they take the heads of a
            group together, which is quicker, but not every version returns the sums in order then; see
            `longest_that_works`.
    """

    def __init__(self, B: int, T: int, P: int, H: int, device: torch.device, longest: int = 1) -> None:
        self._B, self._T, self._P, self._longest = B, T, P, longest
        # The prefix in parts: one row of thread blocks for each head would leave most of the card idle.
        self._parts = max(1, min(LEAST_PREFIX, BLOCKS // H))
        self._borders = torch.arange(self._parts + 1, device=device)
        self._part_rows = (self._borders * B).int()
        self._rows = torch.arange(B + 1, dtype=torch.int32, device=device)
        self._row_slots = self._rows * T
        self._part_slots = torch.zeros_like(self._part_rows)
        self._part_lengths = torch.ones_like(self._part_rows[:-1])
        self._lengths = torch.ones_like(self._rows[:B])

    def begin(self, prefix_length: torch.Tensor, slots: torch.Tensor) -> None:
        """Take the lengths of a step: of the prefix [1], and the slot of the newest token of each row [B]."""
        borders = (self._borders * prefix_length) // self._parts
        self._part_slots.copy_(borders)
        self._part_lengths.copy_(borders[1:] - borders[:-1])
        torch.add(slots, 1, out=self._lengths)

    def takes(self, options: AttentionOptions) -> bool:
        """Whether a layer attends in the way that the kernels know."""
        return options.window is None and options.softcap is None

    def __call__(self, query: torch.Tensor, prefix: KeysValues | None, own: KeysValues, scaling: float) -> torch.Tensor:
        """Outputs [B, H, D].

        Args:
            query: [B, H, D].
            prefix: keys and values, each [P, K, D], of at least LEAST_PREFIX tokens; None: rows share nothing.
            own: keys and values, each [B, T, K, D].
        """
        key, value = (tensor.flatten(0, 1) for tensor in own)
        sizes = (self._longest, self._T)
        own_outputs, own_sums = _flash(query, key, value, self._rows, self._row_slots, sizes, self._lengths, scaling)
        if prefix is None:
            return own_outputs
        n, B, H, D = self._parts, *query.shape
        repeated = query.expand(n, B, H, D).flatten(0, 1)
        prefix_outputs, prefix_sums = _flash(
            repeated, *prefix, self._part_rows, self._part_slots, (B, self._P), self._part_lengths, scaling
        )
        shares = torch.cat([prefix_sums, own_sums], dim=1).view(H, n + 1, B).softmax(dim=1).to(query.dtype)
        outputs = torch.cat([prefix_outputs, own_outputs]).view(n + 1, B, H, D)
        return (outputs * shares.permute(1, 2, 0)[..., None]).sum(dim=0)


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
        cascade = Cascade(B, T, P, H, device, longest)
        cascade.begin(torch.tensor([100], device=device), slots)
        try:
            output = cascade(query, (tensors[0], tensors[1]), (tensors[2], tensors[3]), D**-0.5).float()
        except (RuntimeError, TypeError):
            return None
        if (output - wanted).abs().max() < 0.03:
            return longest
    return None
