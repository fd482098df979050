"""The last node: the test rows, opened once."""

from agent.records.evaluation import Evaluation
from agent.records.events import RunFinished
from agent.records.rounds import Outcome, SplitResult
from graphs.invocation import results
from graphs.services.run import RunServices
from graphs.state import State, decided


def finish(state: State, services: RunServices) -> State:
    """Open the test split, once: the baseline and the best pair on rows that nothing was decided by."""
    from eval import stats
    from eval.commonest import commonest_answer

    first = services.folder.baseline()
    assert first is not None, "the baseline node has run before"
    before, after = services.evaluate.open_test(first.seed), services.evaluate.open_test(state["best"])
    started = first.start and services.evaluate.open_test(first.start)
    outcome = Outcome(
        stopped=decided(state).reason,
        drift=services.forgetting.drift(state["best"].adapter),
        keep=services.forgetting.kept(state["best"].adapter),
        best=state["best"],
        baseline_test=_result(before),
        best_test=_result(after),
        start_test=_result(started) if started else None,
        seen=len(services.folder.outcomes()),
        p_value=stats.sign_flip([b.reward - a.reward for a, b in zip(before.scores, after.scores, strict=True)]),
        commonest=commonest_answer(services.spec, "test"),
        spend=state["spend"] + services.meter.spent,
        usage=services.llm.budget.usage,
    )
    services.folder.append(outcome)
    services.folder.discard_trainings()  # of a killed process, where no round came after it
    services.show_report()
    services.emit(RunFinished(outcome=outcome))
    return results(services, outcome)


def _result(evaluation: Evaluation) -> SplitResult:
    from eval.stats import interval

    low, high = interval([score.reward for score in evaluation.scores])
    return SplitResult(
        candidate=evaluation.candidate, reward=evaluation.reward, low=low, high=high, content=evaluation.content,
        style=evaluation.style, rows=len(evaluation.scores), too_long=evaluation.too_long,
    )  # fmt: skip
