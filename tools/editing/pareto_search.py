"""GEPA's search (Agrawal et al. 2025, arXiv 2507.19457): a pool of texts, each best somewhere. Only this knows gepa."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple

from agent.errors import BadInput, LlmUnavailable
from agent.records.evaluation import ExampleScore

REFLECTED = 3  # rows that a reflection reads, as in the paper
SKIPPED = 4  # tries for each reflection; rows that the parent answers well by now need none

Texts = Mapping[str, str]
State = Any  # gepa's, which is imported late


class Found(NamedTuple):
    """Texts of the Pareto front: after how many rewrites, and on how many rows no other is better.

    A row counts where content or style is best there.
    """

    texts: Texts
    steps: int
    rows: int


def search(
    seed_texts: Texts,
    failing: Sequence[str],
    rows: Sequence[str],
    score: Callable[[Texts, Sequence[str]], list[ExampleScore]],
    rate: Callable[[ExampleScore], float],
    reflect: Callable[[Texts, str, Sequence[ExampleScore]], str | None],
    spent: Callable[[], bool],
    tries: int,
    seed: int,
) -> tuple[list[Found], LlmUnavailable | None]:
    """The Pareto front over rows and over content and style, the first texts included where they are on it.

    A parent is drawn from the front, one of its texts is rewritten from what was said of its answers to a few rows, and
    a child that does better on these is scored on all rows and joins the pool.

    Args:
        seed_texts: the texts to start from, by name; they are rewritten in turn.
        failing: rows to reflect on.
        rows: all rows of the pool.
        score: the scores of texts on rows, in order.
        rate: what a child must improve on the rows of its reflection.
        reflect: a text of these rewritten, from the scores of rows; None: the reply was of no use.
        spent: whether another child would go beyond the budget.
        tries: reflections at most.

    Returns:
        The front, in the order found; and the error that ended the search early, or None.

    Raises:
        BadInput: the package is not installed.
        Whatever `score` and `reflect` raise, except LlmUnavailable of the latter.
    """
    gepa = library()
    adapter = _Adapter(score, rate, reflect)
    state: list[State] = []

    def stop(present: State) -> bool:
        state[:] = [present]  # the result has no front over content and style
        return bool(adapter.lost.error) or spent() or adapter.tried >= tries or present.i + 1 >= SKIPPED * tries

    gepa.optimize(
        dict(seed_texts), list(failing), list(rows), adapter=adapter, frontier_type="cartesian", stop_callbacks=stop,
        reflection_minibatch_size=min(REFLECTED, len(failing)), seed=seed, track_best_outputs=False, logger=_Silent(),
        cache_evaluation=False,  # it takes the rows of both lists for the same; scores are kept by `score`
    )  # fmt: skip
    error = adapter.lost.error
    if error is not None and not isinstance(error, LlmUnavailable):
        raise error
    return list(_front(state[0])), error


def library() -> Any:
    """The package gepa.

    Raises:
        BadInput: it is not installed.
    """
    try:
        import gepa
    except ImportError:
        raise BadInput(
            "`edit.editor: gepa` needs the package gepa: pip install 'gepa>=0.1.4,<0.2'; or take textgrad or rules"
        ) from None
    return gepa


def _front(state: State) -> Iterator[Found]:
    from gepa.gepa_utils import remove_dominated_programs

    fronts = remove_dominated_programs(state.get_pareto_front_mapping(), state.program_full_scores_val_set)
    for place in sorted(set().union(*fronts.values())):
        best_on = {row for (_, row, _), front in fronts.items() if place in front}
        yield Found(state.program_candidates[place], _steps(state, place), len(best_on))


def _steps(state: State, place: int | None) -> int:
    steps = -1
    while place is not None:
        steps, place = steps + 1, state.parent_program_for_candidate[place][0]
    return steps


class _FirstError:
    """Keeps the first error that passes: gepa logs what is raised in a reflection, asks once more, and goes on."""

    error: BaseException | None = None

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.error = self.error or error


class _Adapter:
    """What is optimised, as gepa asks for it (`gepa.core.adapter.GEPAAdapter`)."""

    def __init__(
        self,
        score: Callable[[Texts, Sequence[str]], list[ExampleScore]],
        rate: Callable[[ExampleScore], float],
        reflect: Callable[[Texts, str, Sequence[ExampleScore]], str | None],
    ) -> None:
        self._score = score
        self._rate = rate
        self._reflect = reflect
        self.lost = _FirstError()
        self.tried = 0

    def evaluate(self, batch: list[str], candidate: dict[str, str], capture_traces: bool = False) -> Any:
        from gepa import EvaluationBatch

        scores = self._score(candidate, batch)
        return EvaluationBatch(
            outputs=[score.output for score in scores],
            scores=[self._rate(score) for score in scores],
            trajectories=scores if capture_traces else None,
            objective_scores=[{"content": score.content, "style": score.style} for score in scores],
        )

    def make_reflective_dataset(
        self, candidate: dict[str, str], eval_batch: Any, components_to_update: list[str]
    ) -> dict[str, list[dict[str, ExampleScore]]]:
        return {name: [{"score": score} for score in eval_batch.trajectories] for name in components_to_update}

    def propose_new_texts(
        self, candidate: dict[str, str], reflective_dataset: Mapping[str, Sequence[Mapping[str, Any]]],
        components_to_update: list[str],
    ) -> dict[str, str]:  # fmt: skip
        """The rewritten text, by name; nothing where the reply was of no use: gepa would take an empty text, too."""
        if self.lost.error:
            return {}
        [name] = components_to_update
        self.tried += 1
        with self.lost:
            scores = {entry["score"].example: entry["score"] for entry in reflective_dataset[name]}
            text = self._reflect(candidate, name, list(scores.values()))
        return {name: text} if text is not None else {}


class _Silent:
    """gepa prints what it does, unless it is given somewhere to log to."""

    def log(self, message: str) -> None: ...
