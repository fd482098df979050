"""The next token of each row of a step, greedy or drawn."""

import torch
from transformers import PreTrainedModel

from tools.continuous.row import Choice, Row
from tools.model.generation_config import Constraints


class Chooser:
    """Chooses for rows of one model. Every row gets what it would get alone.

    Args:
        base: the model, whose generation_config may constrain answers.
        ends: ids that end an answer.
    """

    def __init__(self, base: PreTrainedModel, ends: list[int]) -> None:
        self._base = base
        self._ends = ends
        self._constraints: dict[Row, Constraints] = {}
        self._generators: dict[Row, torch.Generator] = {}

    def add(self, row: Row) -> None:
        constraints = Constraints(self._base, [row.prompt], self._ends, row.max_new_tokens)
        if constraints.active:
            self._constraints[row] = constraints
        if row.sampling.temperature > 0:
            self._generators[row] = torch.Generator()
            if row.sampling.seed is None:
                self._generators[row].seed()
            else:
                self._generators[row].manual_seed(row.sampling.seed)

    def forget(self, row: Row) -> None:
        self._constraints.pop(row, None)
        self._generators.pop(row, None)

    def choose(self, rows: list[Row], logits: torch.Tensor) -> list[Choice]:
        """The next token of each row, from logits [N, V]."""
        likeliest = logits.argmax(dim=-1).tolist()
        return [
            self._one(row, logits[place]) if self._is_special(row) else Choice(likeliest[place])
            for place, row in enumerate(rows)
        ]

    def _is_special(self, row: Row) -> bool:
        return row in self._constraints or row in self._generators or row.sampling.logprobs is not None

    def _one(self, row: Row, logits: torch.Tensor) -> Choice:
        """Of logits [V]."""
        if row in self._constraints:
            logits = self._constraints[row]([0], [row.tokens], logits[None])[0]
        token = self._drawn(row, logits) if row in self._generators else int(logits.argmax())
        if row.sampling.logprobs is None:
            return Choice(token)
        logprobs = logits.float().log_softmax(dim=-1)
        top = logprobs.topk(min(row.sampling.logprobs, len(logprobs)))
        return Choice(token, float(logprobs[token]), list(zip(top.indices.tolist(), top.values.tolist(), strict=True)))

    def _drawn(self, row: Row, logits: torch.Tensor) -> int:
        """On the processor, so that a seed means the same everywhere."""
        chances, ids = (logits.float().cpu() / row.sampling.temperature).softmax(dim=-1).sort(descending=True)
        before = chances.cumsum(dim=-1) - chances
        before[0] = -1  # the likeliest stays, however small top_p is
        chances[before >= row.sampling.top_p] = 0
        return int(ids[torch.multinomial(chances, 1, generator=self._generators[row])])
