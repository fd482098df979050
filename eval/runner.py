"""Scores a candidate on rows of a split: served from the store where it was scored before, else generated."""

from collections.abc import Callable, Sequence
from typing import Protocol

from agent.protocols import LanguageModel
from agent.records import Candidate, Evaluation, Example, ExampleScore, Prompt, Split
from eval.tasks import Task


class EvaluationStore(Protocol):
    """Where evaluations are kept. The key is the whole candidate: a prompt scores anew after each LoRA update."""

    def load(self, candidate: Candidate, split: Split, limit: int | None) -> Evaluation | None:
        """What was saved under exactly this candidate, split and limit, or None."""
        ...

    def save(self, evaluation: Evaluation, limit: int | None) -> None: ...


class Runner:
    """Satisfies `agent.protocols.Evaluator`. `prompt_of` finds the prompt behind a candidate's prompt id."""

    def __init__(
        self, task: Task, model: LanguageModel, prompt_of: Callable[[str], Prompt], store: EvaluationStore
    ) -> None:
        self._task = task
        self._model = model
        self._prompt_of = prompt_of
        self._store = store

    def __call__(self, candidate: Candidate, split: Split, limit: int | None = None) -> Evaluation:
        """The candidate's scores on the first `limit` rows of train or validation, or on all.

        Raises:
            ValueError: the test split is asked for, or a limit below 1.
        """
        if split == "test":
            raise ValueError("the test split is sealed: open_test opens it, once, at the end of a run")
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be at least 1, but it is {limit}")
        return self._evaluate(candidate, split, limit)

    def surprise(self, candidate: Candidate) -> list[float]:
        """NLL of the validation references in the wanted form under the candidate, nats per token.

        Rows whose reference cannot be shown in a form that passes are left out.
        """
        scorers = self._task.scorers
        rows = [row for row in self._task.validation if scorers.passes(scorers.show(row.answer), row)]
        wanted = [("", scorers.show(row.answer)) for row in rows]
        return self._model.nll(self._prompt_of(candidate.prompt), rows, wanted, adapter=candidate.adapter)

    def open_test(self, candidate: Candidate) -> Evaluation:
        """The candidate's scores on all test rows. For the end of a run: nothing may be decided by them."""
        return self._evaluate(candidate, "test", None)

    def _evaluate(self, candidate: Candidate, split: Split, limit: int | None) -> Evaluation:
        rows = self._task.rows(split)[:limit]
        if len(rows) == len(self._task.rows(split)):
            limit = None
        # Decoding is greedy, so the first rows of a full evaluation are what a limited one would find.
        if full := self._store.load(candidate, split, None):
            return Evaluation(candidate=candidate, split=split, scores=full.scores[:limit])
        if limit and (partial := self._store.load(candidate, split, limit)):
            return partial
        evaluation = Evaluation(candidate=candidate, split=split, scores=self._scores(candidate, rows))
        self._store.save(evaluation, limit)
        return evaluation

    def _scores(self, candidate: Candidate, rows: Sequence[Example]) -> tuple[ExampleScore, ...]:
        outputs = self._model.generate(
            self._prompt_of(candidate.prompt),
            rows,
            adapter=candidate.adapter,
            max_new_tokens=self._task.config.generation.max_new_tokens,
        )
        return tuple(self._task.scorers.score(row, output) for row, output in zip(rows, outputs, strict=True))
