"""Which rows an edit looks at: train rows to learn from, and rows to compare its proposals on."""

from collections.abc import Sequence

from agent.moves import EditPrompt
from agent.records import Candidate, Prompt, folded
from graphs.context import Context
from graphs.state import State

HELD_OUT = 4  # one validation row in so many is raced on, where train rows cannot serve


def learned_rows(state: State, context: Context, size: int | None = None) -> list[str]:
    """Names of the train rows that editor, planner and rewriter learn from in this round; other ones in the next.

    Args:
        size: by default what the editor learns from; with more, those come first.
    """
    config = context.spec.config
    each = config.edit.learned_from
    return _train_batch(context, _draws(state, context) * each, size or each)


def race_rows(state: State, context: Context, best: Candidate, prompts: Sequence[Prompt]) -> list[str]:
    """Names of the rows on which proposals are compared; none of them decides afterwards what is kept.

    Train rows that no proposal demonstrates, and that no LLM has just criticised, where the pair has no adapter. An
    adapter knows its train rows by heart, so there, and where train rows are few, it is a quarter of the validation
    rows, which the gate then leaves out.
    """
    config, task = context.spec.config, context.spec
    wanted, each = config.edit.minibatch, config.edit.learned_from
    number = _draws(state, context)
    shown = {folded(demo.question) for prompt in prompts for demo in prompt.demos}
    criticised = set(learned_rows(state, context)) if config.edit.editor == "textgrad" else set()
    free = [
        name
        for name in _train_batch(context, number * each, len(task.train))
        if name not in criticised and folded(context.examples[name].question) not in shown
    ]
    if best.adapter is None and 2 * len(free) >= wanted:
        return free[:wanted]
    from eval.batches import batch

    size = min(wanted, max(1, len(task.validation) // HELD_OUT))
    return batch([row.name for row in task.validation], number * size, size, config.seed)


def _draws(state: State, context: Context) -> int:
    """How many rounds have drawn train rows before: each edit, and every round that an LLM plans."""
    before = context.folder.rounds()[: state.get("number", 0)]
    if context.spec.config.plans:
        return len(before)
    return sum(isinstance(row.decision.move, EditPrompt) for row in before)


def _train_batch(context: Context, start: int, size: int) -> list[str]:
    from eval.batches import batch

    return batch([row.name for row in context.spec.train], start, size, context.spec.config.seed)
