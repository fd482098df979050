"""Which rows an edit looks at: train rows to learn from, and rows to compare its proposals on."""

from collections.abc import Sequence

from agent.records.actions import EditPrompt
from agent.records.base import folded
from agent.records.examples import Candidate, Example, Prompt
from graphs.services.run import RunServices
from graphs.state import State

HELD_OUT = 4  # proposals are compared on one validation row in four, where train rows cannot serve


def learned_rows(state: State, services: RunServices, size: int | None = None) -> list[str]:
    """Names of the train rows that editor, planner and rewriter learn from. The next round gets others.

    Args:
        size: how many; by default as many as the editor learns from. Those come first in a larger number, too.
    """
    each = services.spec.config.edit.learned_from
    return _batch(services.spec.train, _draws(state, services) * each, size or each, services)


def comparison_rows(state: State, services: RunServices, best: Candidate, prompts: Sequence[Prompt]) -> list[str]:
    """Names of the rows on which proposals are compared; none of them decides afterwards what is kept.

    Where the pair has no adapter, these are train rows that no proposal demonstrates and that no LLM has just
    criticised. An adapter knows its train rows by heart. So with an adapter, and where train rows are few, they are a
    quarter of the validation rows, which the gate then leaves out.
    """
    task, edit = services.spec, services.spec.config.edit
    if best.adapter is None:
        criticised = edit.learned_from if edit.asks_llm else 0  # those come first
        shown = {folded(demo.question) for prompt in prompts for demo in prompt.demos}
        order = learned_rows(state, services, len(task.train))[criticised:]
        free = [name for name in order if folded(services.examples[name].question) not in shown]
        if 2 * len(free) >= edit.minibatch:
            return free[: edit.minibatch]
    size = min(edit.minibatch, max(1, len(task.validation) // HELD_OUT))
    return _batch(task.validation, _draws(state, services) * size, size, services)


def _draws(state: State, services: RunServices) -> int:
    """How many rounds have drawn train rows before: each edit, and every round that an LLM plans."""
    before = services.folder.rounds()[: state.get("number", 0)]
    if services.spec.config.plans:
        return len(before)
    return sum(isinstance(row.decision.move, EditPrompt) for row in before)


def _batch(rows: Sequence[Example], start: int, size: int, services: RunServices) -> list[str]:
    """Names of rows in their turn, in the order of this run's seed."""
    from eval.batches import batch

    return batch([row.name for row in rows], start, size, services.spec.config.seed)
