"""The lever that tunes the weights."""

from agent.counting import plural
from agent.errors import StepFailed
from agent.records.actions import TrainLora
from agent.records.base import digest
from agent.records.examples import Candidate, Example, Prompt
from agent.records.rounds import Spend, Trial
from agent.records.training import Training, TrainingJob, read_training
from graphs.lost_adapters import is_whole
from graphs.services.run import RunServices
from graphs.state import State, action_of, seed_of


def train_lora(state: State, services: RunServices) -> State:
    """Tune the weights. An adapter that was completed before a kill is taken as it is."""
    action, best = as_set(state, services), state["best"]
    rows = training_rows(services, best, action)
    parent = None if action.fresh else best.adapter
    seed = seed_of(state, services)
    settings = services.spec.config.lora.model_dump(mode="json", exclude={"checkpoint_seconds"})  # it changes nothing
    # What `bare` changes are the rows' prompts.
    adapter = digest(
        [services.spec.config.base, parent, action.model_dump(exclude={"bare"}), settings, seed,
         [[prompt.id, example.id] for prompt, example in rows]]
    )  # fmt: skip
    folder = services.folder.adapter_folder(adapter)
    # A training that a budget may cut short is not shared: what another run made in full would be another adapter.
    budget = services.spec.config.budget
    pooled = services.pooled if budget.minutes is None and budget.train_tokens is None else None
    lent = pooled is not None and pooled.borrow(adapter, folder)
    try:
        if is_whole(adapter, services):
            training = read_training(folder)
            _take_over(training, adapter, lent, services)
        else:
            training = _train(services, state, adapter, rows)
            if pooled:
                pooled.lend(adapter, folder)
    except StepFailed as error:
        return {"trial": Trial(candidate=None, note=f"LoRA failed: {error}")}
    epochs = len(training.epoch_losses)
    note = f"{plural(training.row_count, f'{training.rows} row')}, {plural(epochs, 'epoch')}"
    if training.rewritten:
        note += f", {training.rewritten} of the rows with rewritten questions"
    if training.general:
        note += f", with {plural(training.general, 'general row')} an epoch against forgetting"
    if action.bare:
        given_up = services.folder.prompt(best.prompt).shown
        note += f", giving {plural(given_up, 'few-shot example')} up" if given_up else ", with none to give up"
    if training.retried:
        note += f"; {training.retried}"
    if training.left_out:
        note += f", {plural(training.left_out, 'row')} left out as too long (lora.max_tokens, or the model's window)"
    return {
        "trial": Trial(
            candidate=Candidate(prompt=services.folder.save_prompt(_prompt(services, best, action)), adapter=adapter),
            note=f"{note}; {training.stopped}" if training.stopped else note,
            loss=training.epoch_losses[-1] if training.steps else None,
            loss_drop=training.loss_drop,
            grad_norm=training.grad_norm,
            grad_drop=training.grad_drop,
        )
    }


def _take_over(training: Training, adapter: str, lent: bool, services: RunServices) -> None:
    """Charge an adapter that was just lent, or one that a killed process made and its charges do not count."""
    if any(row.trial.candidate and row.trial.candidate.adapter == adapter for row in services.folder.rounds()):
        return
    charged = 0 if lent else _charged(services)
    missing = training.tokens - charged
    if missing > 0:
        seconds = training.seconds * missing / training.tokens
        read = training.read_tokens if lent else 0  # what a killed process read was charged as it was read
        services.meter.borrow(Spend(seconds=seconds, train_tokens=missing, read_tokens=read))


def as_set(state: State, services: RunServices) -> TrainLora:
    """The action that was decided; what it leaves open is as the task sets it."""
    action = action_of(state, TrainLora)
    if action.replay is not None:
        return action
    return action.model_copy(update={"replay": services.spec.config.lora.replay})


def _train(services: RunServices, state: State, adapter: str, rows: list[tuple[Prompt, Example]]) -> Training:
    budget, trained = services.spec.config.budget, (state["spend"] + services.meter.spent).train_tokens
    if budget.train_tokens is not None and trained >= budget.train_tokens:
        raise StepFailed("the training-token budget is used up, by trainings that were cut off")
    limit = None if budget.train_tokens is None else budget.train_tokens - trained
    training = train(services, state, adapter, rows, limit, services.meter.deadline, _charged(services))
    services.meter.borrow(Spend(train_tokens=max(0, training.tokens - _charged(services))))  # what is not charged yet
    return training


def _charged(services: RunServices) -> int:
    """Training tokens that this step is charged with: by trainers as they go on, also those that were killed in it."""
    return (services.meter.spent + services.meter.counted).train_tokens


def train(
    services: RunServices,
    state: State,
    adapter: str,
    rows: list[tuple[Prompt, Example]],
    token_limit: int | None,
    deadline: float | None,
    charged: int = 0,
) -> Training:
    """Train the adapter that the action under way asks for; limits, and `charged`, as in `TrainingJob`."""
    action = as_set(state, services)
    job = TrainingJob(
        adapter=adapter,
        rows=tuple(rows),
        action=action,
        folder=services.folder.adapter_folder(adapter),
        parent=None if action.fresh else state["best"].adapter,
        seed=seed_of(state, services),
        rewritten=sum(example.question != services.examples[example.name].question for _, example in rows),
        token_limit=token_limit,
        deadline=deadline,
        charged=charged,
    )
    return services.trainer.train(job)


def training_rows(services: RunServices, best: Candidate, action: TrainLora) -> list[tuple[Prompt, Example]]:
    """(prompt, example) pairs: refined rows under the prompt they were remade with, original rows under the seed's.

    Where that prompt retrieves few-shot examples, each row has its own, and is none of them.
    """
    from memory.remake import remake, select
    from memory.retrieval import with_retrieved

    seed_prompt = services.spec.config.prompt.prompt()
    seed_prompt = seed_prompt.bare if action.bare else seed_prompt
    best_prompt, task = _prompt(services, best, action), services.spec
    remade = None
    if action.rows != "original":
        remade = remake(task.train, best_prompt, task.scorers, services.folder.rewrites())
    chosen = select(task.train, remade, action.rows)
    rows = [(best_prompt if row.prompt else seed_prompt, row.example) for row in chosen]
    return with_retrieved(rows, services.retriever)


def _prompt(services: RunServices, best: Candidate, action: TrainLora) -> Prompt:
    """The prompt of the pair that the action makes."""
    prompt = services.folder.prompt(best.prompt)
    return prompt.bare if action.bare else prompt
