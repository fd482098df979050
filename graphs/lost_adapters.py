"""Adapters whose files were damaged or lost: set aside, and trained again from what the ledger says of them."""

from collections.abc import Iterator

from agent.records.actions import TrainLora
from agent.records.rounds import Spend, Trial
from agent.records.training import is_damaged
from graphs.rows.labels import pairs_before
from graphs.services.run import RunServices
from graphs.state import State


def is_whole(adapter: str, services: RunServices) -> bool:
    """Whether a complete adapter is there. A damaged one is set aside. Looked at once in a process."""
    if not services.folder.has_adapter(adapter):
        return False
    if adapter not in services.whole_adapters and is_damaged(services.folder.adapter_folder(adapter)):
        services.note(f"{services.folder.set_adapter_aside(adapter)}, and it is trained again.")
        return False
    services.whole_adapters.add(adapter)
    return True


def restore_adapters(state: State, services: RunServices, *, judged: bool) -> None:
    """Train the adapters of the best pair again, and of the trial if it is `judged`, where they are not whole.

    The same rows, settings and seed give the same weights. An adapter that no round is known to have made stays away.
    """
    pairs = [state.get("best"), state["trial"].candidate if judged else None]
    for adapter in {pair.adapter for pair in pairs if pair and pair.adapter}:
        _restore(adapter, state, services)


def _restore(adapter: str, state: State, services: RunServices) -> None:
    from graphs.nodes.train_lora import as_set, train, training_rows
    from graphs.start import take_up_start

    if is_whole(adapter, services):
        return
    first = services.folder.baseline()
    if first and first.start and first.start.adapter == adapter:
        take_up_start(services)
        return
    for then, trial in _trainings(state, services):
        if trial.candidate and trial.candidate.adapter == adapter:
            action, before = as_set(then, services), then["best"]
            if before.adapter and not action.fresh:
                _restore(before.adapter, state, services)
            limit = trial.spend.train_tokens if "budget was used up" in trial.note else None
            made = train(services, then, adapter, training_rows(services, before, action), limit, None)
            services.note(f"Adapter {adapter} is restored: {made.tokens:,} tokens were trained again.")
            return


def _trainings(state: State, services: RunServices) -> Iterator[tuple[State, Trial]]:
    """Every training of the run, the one under way too, with the state that it began from."""
    rounds = services.folder.rounds()
    for row, before in zip(rounds, pairs_before(rounds, services), strict=True):
        if isinstance(row.decision.move, TrainLora):
            yield State(number=row.number - 1, best=before, decision=row.decision, spend=Spend()), row.trial
    decision = state.get("decision")
    if "trial" in state and decision and isinstance(decision.move, TrainLora):
        yield state, state["trial"]
