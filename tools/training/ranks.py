"""Processes that train one adapter together: each takes a share of a step's rows, and the gradients are added up."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import distributed

from tools.model.backbone import Backbone
from tools.model.chat_template import TokenRow
from tools.packed.base_predictions import PredictedRow
from tools.packed.packing import common_prefix
from tools.training.general import GeneralBatch

Row = TypeVar("Row", bound=TokenRow)


class Share(NamedTuple):
    """What one process does of a step.

    The mean loss over its rows times `weight`, added up over all processes, is the mean over all rows; so are the
    gradients. The weight of its general rows is scaled in the same way.
    """

    batches: list[list[TokenRow]]
    general: GeneralBatch
    weight: float


@dataclass(frozen=True)
class Ranks:
    """The processes of an initialized process group, as one of them sees it.

    Attributes:
        rank: of this process; 0 reports, and saves.
        size: how many processes there are.
    """

    rank: int
    size: int

    @classmethod
    def of_this_group(cls) -> "Ranks":
        return cls(distributed.get_rank(), distributed.get_world_size())

    def begin(self, weights: Sequence[torch.Tensor]) -> None:
        """Start from rank 0's weights. What is drawn from here on (dropout) differs between processes."""
        for weight in weights:
            distributed.broadcast(weight.data, src=0)
        torch.manual_seed(torch.initial_seed() + self.rank)

    def share(self, backbone: Backbone, batches: Sequence[Sequence[TokenRow]], general: GeneralBatch) -> Share:
        """This process's part of a step. All processes compute the same division, so nothing is sent."""
        divided = divide(backbone, [*batches, general.rows], self.size)
        mine = divided[self.rank]
        own = [list(rows) for rows in mine[:-1] if rows]
        predicted = [row for row in mine[-1] if isinstance(row, PredictedRow)]
        weight = general.weight * _targets([predicted]) / max(1, _targets([general.rows]))
        return Share(
            own,
            GeneralBatch(predicted, weight),
            _targets(own) / max(1, _targets(batches)),
        )

    def add_up(self, tensor: torch.Tensor) -> None:
        """Replace it by the sum over all processes."""
        distributed.all_reduce(tensor)

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Those of all processes, of one shape and in the host's memory, one after the other: [processes, ...]."""
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        distributed.all_gather(found, tensor)
        return torch.stack(found)

    def any(self, flag: bool) -> bool:
        """Whether it is true in any process. On the host: a GPU is not waited for."""
        flags = torch.tensor(float(flag))
        distributed.all_reduce(flags, distributed.ReduceOp.MAX)
        return bool(flags.item())


def divide(backbone: Backbone, batches: Sequence[Sequence[Row]], parts: int) -> list[list[list[Row]]]:
    """Divide the rows of a step so that all parts take about as long: the dearest row first, to whom it costs least.

    The rows of a batch share their beginning, which a part runs once, however many of them it has.

    Returns:
        For each part its rows of each batch, in their order; a part may have none.
    """
    loads, places = [0] * parts, [[list[int]() for _ in batches] for _ in range(parts)]
    shared = [len(common_prefix(rows)) if backbone.packs and rows else 0 for rows in batches]
    own = (
        (len(row) - shared[batch], batch, place) for batch, rows in enumerate(batches) for place, row in enumerate(rows)
    )
    for cost, batch, place in sorted(own, key=lambda item: (-item[0], item[1], item[2])):
        total = [loads[part] + cost + (0 if places[part][batch] else shared[batch]) for part in range(parts)]
        part = total.index(min(total))
        loads[part] = total[part]
        places[part][batch].append(place)
    return [
        [[rows[place] for place in sorted(mine)] for rows, mine in zip(batches, part, strict=True)] for part in places
    ]


def _targets(batches: Sequence[Sequence[TokenRow]]) -> int:
    return sum(len(row.completion) for rows in batches for row in rows)
