"""The nodes that act: train the weights, rewrite the words, go back."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from agent.errors import StepFailed
from agent.records.actions import EditPrompt, Rollback, TrainLora
from agent.records.base import digest
from agent.records.edits import Edit
from agent.records.examples import Candidate, Example, Prompt, split_of
from agent.records.rounds import Proposal, Spend, Trial
from agent.records.training import Training, read_training
from graphs.nodes.draws import learned_rows, race_rows
from graphs.nodes.rewrite_questions import remake_questions
from graphs.services.context import Context
from graphs.state import State, metered, move_of, seed_of


@metered
def train_lora(state: State, context: Context) -> dict[str, Any]:
    """Tune the weights. An adapter that was completed before a kill is taken as it is."""
    move = move_of(state, TrainLora)
    rows = _training_rows(context, state["best"], move)
    parent = None if move.fresh else state["best"].adapter
    settings, seed = context.spec.config.lora, seed_of(state, context)
    adapter = digest(
        [context.spec.config.base, parent, move.model_dump(), settings.model_dump(mode="json"), seed,
         [[prompt.id, example.id] for prompt, example in rows]]
    )  # fmt: skip
    folder = context.folder.adapter_folder(adapter)
    pooled = context.pooled if _unlimited(context) else None
    lent = pooled is not None and pooled.borrow(adapter, folder)
    try:
        if context.folder.has_adapter(adapter):
            training = read_training(folder)
            _take_over(training, adapter, lent, context)
        else:
            training = _train(context, state, adapter, rows)
            if pooled:
                pooled.lend(adapter, folder)
    except StepFailed as error:
        return {"trial": Trial(candidate=None, note=f"LoRA failed: {error}")}
    note = f"{training.row_count} {training.rows} rows, {len(training.epoch_losses)} epochs"
    if training.rewritten:
        note += f", {training.rewritten} of the rows with rewritten questions"
    if training.left_out:
        note += f", {training.left_out} rows left out as too long (lora.max_tokens, or the model's window)"
    return {
        "trial": Trial(
            candidate=Candidate(prompt=state["best"].prompt, adapter=adapter),
            note=f"{note}; {training.stopped}" if training.stopped else note,
            loss=training.epoch_losses[-1] if training.steps else None,
            loss_drop=training.loss_drop,
            grad_norm=training.grad_norm,
        )
    }


def _take_over(training: Training, adapter: str, lent: bool, context: Context) -> None:
    """Charge an adapter that was just lent, or one that a killed process made and its charges do not count."""
    if any(row.trial.candidate and row.trial.candidate.adapter == adapter for row in context.folder.rounds()):
        return
    charged = 0 if lent else (context.meter.spent + context.meter.counted).train_tokens
    missing = training.tokens - charged
    if missing > 0:
        seconds = training.seconds * missing / training.tokens
        context.meter.borrow(Spend(seconds=seconds, train_tokens=missing))


def _unlimited(context: Context) -> bool:
    """Whether no budget could cut a training short: what another run made in full would not be what this one may."""
    budget = context.spec.config.budget
    return budget.minutes is None and budget.train_tokens is None


def _train(context: Context, state: State, adapter: str, rows: list[tuple[Prompt, Example]]) -> Training:
    move, config = move_of(state, TrainLora), context.spec.config
    budget, trained = config.budget, (state["spend"] + context.meter.spent).train_tokens
    if budget.train_tokens is not None and trained >= budget.train_tokens:
        raise StepFailed("the training-token budget is used up, by trainings that were cut off")
    return context.trainer.train(
        adapter,
        rows,
        move,
        folder=context.folder.adapter_folder(adapter),
        parent=None if move.fresh else state["best"].adapter,
        seed=seed_of(state, context),
        rewritten=sum(example.question != context.examples[example.name].question for _, example in rows),
        token_limit=None if budget.train_tokens is None else budget.train_tokens - trained,
        deadline=context.meter.deadline,
    )


def _training_rows(context: Context, best: Candidate, move: TrainLora) -> list[tuple[Prompt, Example]]:
    """(prompt, example) pairs: refined rows under the prompt they were remade with, original rows under the seed's."""
    from memory.remake import remake, select

    seed_prompt = context.spec.config.prompt.prompt()
    best_prompt, task = context.folder.prompt(best.prompt), context.spec
    remade = None
    if move.rows != "original":
        remade = remake(task.train, best_prompt, task.scorers, context.folder.rewrites())
    chosen = select(task.train, remade, move.rows)
    return [(best_prompt if row.prompt else seed_prompt, row.example) for row in chosen]


@metered
def edit_prompt(state: State, context: Context) -> dict[str, Any]:
    """Rewrite the words: several proposals, compared on a minibatch; the best goes to the gate, on other rows."""
    move, config, best = move_of(state, EditPrompt), context.spec.config, state["best"]
    present = context.folder.prompt(best.prompt)
    # Editors learn from train rows: a prompt is not to be written with those in view by which it is judged.
    failures = context.evaluate(best, "train", learned_rows(state, context))
    proposed = context.editor.propose(present, failures, context.spec.train, move, seed_of(state, context))
    edits, refused = _apart(context, present, proposed.edits)
    remarks = [*proposed.remarks, *([f"edits refused because they give rows away: {len(refused)}"] if refused else [])]
    remaking = None
    if "questions" in move.parts and context.textgrad and config.edit.rewrites:
        made = remake_questions(state, context)
        remaking = made and made.remaking
        remarks += [made.remark] if made and made.remark else []
    trial = Trial(candidate=None, note="", proposals=refused, critiques=proposed.critiques, remaking=remaking)
    if not edits:
        why = "; ".join(remarks) or "the editor has no proposal left"
        return {"trial": trial.model_copy(update={"note": f"The prompt stays as it is: {why}"})}
    names = race_rows(state, context, best, [present, *(edit.prompt for edit in edits)])
    winner, tried = race(edits, present, best.adapter, names, context)
    raced = {
        "raced": tuple(names),
        "candidate": winner and Candidate(prompt=winner.id, adapter=best.adapter),
        "note": "; ".join([_won(winner, tried), *remarks]),
        "proposals": (*tried, *refused),
    }
    return {"trial": trial.model_copy(update=raced)}


def race(
    edits: Sequence[Edit], present: Prompt, adapter: str | None, names: Sequence[str], context: Context
) -> tuple[Prompt | None, list[Proposal]]:
    """The best of the edits and the present prompt on the rows of these names, all of one split."""
    from tools.editing.comparison import compare_proposals

    score = partial(context.evaluate, split=split_of(names[0]), names=names)
    return compare_proposals(edits, present, adapter, score, context.folder.save_prompt)


def _won(winner: Prompt | None, tried: Sequence[Proposal]) -> str:
    """What came of a race; the first of those tried is the present prompt."""
    if winner is None:
        return f"None of {len(tried) - 1} proposals beat the present prompt on the minibatch"
    note = next(proposal.note for proposal in tried if proposal.prompt == winner.id)
    return f"{note}; the best of {len(tried) - 1} proposals"


def _apart(context: Context, present: Prompt, edits: Sequence[Edit]) -> tuple[list[Edit], tuple[Proposal, ...]]:
    """The edits to race, and those refused because their words give away rows. (Demonstrations are train rows.)"""
    given_away = [context.leaks.found_in(edit.prompt, present) for edit in edits]
    judged = list(zip(edits, given_away, strict=True))
    refused = [
        Proposal(prompt=context.folder.save_prompt(edit.prompt), note=f"refused: {edit.note}; {leak}")
        for edit, leak in judged
        if leak
    ]
    return [edit for edit, leak in judged if not leak], tuple(refused)


@metered
def rollback(state: State, context: Context) -> dict[str, Any]:
    """Take up the pair that stood after an earlier round."""
    number = move_of(state, Rollback).to_round
    first, rounds = context.folder.baseline(), context.folder.rounds()
    if number > len(rounds) or first is None:
        return {"trial": Trial(candidate=None, note=f"There is no round {number} to go back to.")}
    candidate = rounds[number - 1].best if number else first.best
    return {"trial": Trial(candidate=candidate, note=f"back to the pair after round {number}")}
