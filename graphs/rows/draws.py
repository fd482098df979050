"""Which rows an edit looks at: train rows to learn from, and rows to compare its proposals on."""

from collections.abc import Sequence

from agent.records.actions import EditPrompt
from agent.records.base import folded
from agent.records.examples import Candidate, Example, Prompt
from graphs.services.run import RunServices
from graphs.state import State

HELD_OUT = 4  # one validation row in so many is raced on, where train rows cannot serve


def learned_rows(state: State, context: RunServices, size: int | None = None) -> list[str]:
    """Names of the train rows that editor, planner and rewriter learn from in this round; other ones in the next.

    Args:
        size: by default what the editor learns from; with more, those come first.
    """
    each = context.spec.config.edit.learned_from
    return _batch(context.spec.train, _draws(state, context) * each, size or each, context)


def race_rows(state: State, context: RunServices, best: Candidate, prompts: Sequence[Prompt]) -> list[str]:
    """Names of the rows on which proposals are compared; none of them decides afterwards what is kept.

    Train rows that no proposal demonstrates, and that no LLM has just criticised, where the pair has no adapter. An
    adapter knows its train rows by heart, so there, and where train rows are few, it is a quarter of the validation
    rows, which the gate then leaves out.
    """
    task, edit = context.spec, context.spec.config.edit
    if best.adapter is None:
        criticised = edit.learned_from if edit.editor == "textgrad" else 0  # those come first
        shown = {folded(demo.question) for prompt in prompts for demo in prompt.demos}
        order = learned_rows(state, context, len(task.train))[criticised:]
        free = [name for name in order if folded(context.examples[name].question) not in shown]
        if 2 * len(free) >= edit.minibatch:
            return free[: edit.minibatch]
    size = min(edit.minibatch, max(1, len(task.validation) // HELD_OUT))
    return _batch(task.validation, _draws(state, context) * size, size, context)


def _draws(state: State, context: RunServices) -> int:
    """How many rounds have drawn train rows before: each edit, and every round that an LLM plans."""
    before = context.folder.rounds()[: state.get("number", 0)]
    if context.spec.config.plans:
        return len(before)
    return sum(isinstance(row.decision.move, EditPrompt) for row in before)


def _batch(rows: Sequence[Example], start: int, size: int, context: RunServices) -> list[str]:
    """Names of rows in their turn, in the order of this run's seed."""
    from eval.batches import batch

    return batch([row.name for row in rows], start, size, context.spec.config.seed)
