"""What the bare base predicts at the tokens of a row, and how far other weights are from it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tools.model.chat_template import TokenRow

LIKELIEST = 64  # tokens that are told apart at a place; the others count together


@dataclass(frozen=True, eq=False)
class PredictedRow(TokenRow):
    """A row, and what the base predicts at each of its C completion tokens.

    Attributes:
        likeliest: [C, K] the tokens that the base finds likeliest there.
        chances: [C, K] how likely it finds each.
    """

    likeliest: torch.Tensor
    chances: torch.Tensor


def likeliest(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of logits [N, V] the likeliest tokens, and their chances: each [N, K]."""
    top = logits.float().log_softmax(dim=-1).topk(min(LIKELIEST, logits.shape[-1]), dim=-1)
    return top.indices, top.values.exp()


def predictions(rows: Sequence[PredictedRow]) -> tuple[torch.Tensor, torch.Tensor]:
    """The likeliest tokens, and their chances, at every completion token, row after row: each [N, K]."""
    return torch.cat([row.likeliest for row in rows]), torch.cat([row.chances for row in rows])


def divergence(logits: torch.Tensor, likeliest: torch.Tensor, chances: torch.Tensor) -> torch.Tensor:
    """KL(base || these logits) at each place: [N] in nats, differentiable.

    All tokens but the likeliest count as one outcome, so it is at most the divergence over all tokens (Cover & Thomas,
    Elements of Information Theory, section 2.7: the log sum inequality).

    Args:
        logits: [N, V].
        likeliest, chances: [N, K], the base's.
    """
    logits = logits.float()
    log_q = logits.gather(1, likeliest) - logits.logsumexp(dim=-1, keepdim=True)  # [N, K]
    tiny = torch.finfo(torch.float32).tiny
    found = torch.xlogy(chances, chances.clamp_min(tiny)) - chances * log_q
    rest = (1 - chances.sum(dim=-1)).clamp_min(0)
    log_rest_q = (1 - log_q.exp().sum(dim=-1)).clamp_min(1e-6).log()
    return found.sum(dim=-1) + torch.xlogy(rest, rest.clamp_min(tiny)) - rest * log_rest_q
