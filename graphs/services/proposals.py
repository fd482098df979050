"""Whether a run's budget holds the few proposals without which asking an LLM for them is of little use."""

from collections.abc import Iterator

from agent.config.task import TaskConfig

FEW = 3


def few_proposals(config: TaskConfig, train_rows: int) -> Iterator[str]:
    """A sentence for each limit that holds fewer, as far as can be said before anything is spent."""
    edit, usd = config.edit, config.budget.usd
    if not edit.asks_llm:
        return
    each = min(edit.minibatch, train_rows)
    if edit.editor == "gepa" and edit.answers < FEW * each:
        yield (
            f"edit.metric_calls: {edit.answers} answers a round hold fewer than {FEW} proposals of GEPA, which take up "
            f"to {each} each. Raise it, or lower edit.minibatch."
        )
    if edit.editor == "gepa" and edit.critiques < FEW:
        yield f"edit.critiques: {edit.critiques} holds fewer than {FEW} proposals of GEPA, one a reflection."
    llm = config.llm and config.llm.of("editor")
    most = llm.price.output * llm.max_tokens / 1e6 if llm else 0  # what is sent comes on top
    if usd is not None and FEW * most > usd:
        yield (
            f"budget.usd: {usd:g} may hold fewer than {FEW} proposals, since each call of the editor is charged "
            f"{most:.4f} for its answer before it is made. Raise it, or lower llm.max_tokens."
        )


def few_in_time(seconds: float, left: float | None) -> str:
    """A sentence where the run's minutes hold fewer; "" else.

    Args:
        seconds: that the answers of one proposal take, at least.
        left: seconds of the run; None: no limit.
    """
    if left is None or FEW * seconds <= left:
        return ""
    return (
        f"budget.minutes: {max(left, 0):.0f} s are left. {FEW} proposals take longer: the answers to one need "
        f"{seconds:.0f} s."
    )
