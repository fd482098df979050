"""What all policies share: when the run is over, how weights are trained, which numbers a decision shows."""

from collections.abc import Sequence
from itertools import takewhile

from agent.config.task import TaskConfig
from agent.counting import plural
from agent.protocols import Briefing
from agent.records.actions import Rows, TrainLora
from agent.records.rounds import Round, Verdict, tried
from agent.records.signal import Diagnosis, Signal

# Lacks of fewer rows than this are left to the other lever.
WORTH_A_ROUND = 0.1
# A training whose last epoch still lowers the loss by this share may be continued.
FALLING = 0.05
# Loss (nats a token) below which a training has learned its rows, though it may still fall. Where wrong rows mislead it
# (`mislabelled`: reward 0.67 -> 0.21 at loss 0.01), twice the epochs made nothing good (0.33, and 0.17 in another run).
LEARNED_LOSS = 0.05
# Share of rows that the pair knows, beyond luck, from which on training goes on under the few-shot examples it has.
WORTH_KEEPING = 0.5
# Chance that an edit mends a failing row from which on words come first: more likely than not.
LIKELY = 0.5
# Share of train answers from which weights learn the wanted form along with what the answers say.
TEACHABLE = 0.5
# General rows for each training row after a training that forgot too much without any; and the most there may be.
FIRST_REPLAY, MOST_REPLAY = 0.25, 4.0


def stop_reason(briefing: Briefing, config: TaskConfig) -> str | None:
    """Why the run is over whatever a policy thinks: target reached, a budget used up, no LLM where one is needed."""
    budget, spend, reward = config.budget, briefing.spend, briefing.signal.reward
    if reward >= config.target:
        return f"The target is reached: validation reward {reward:.2f}, target {config.target:.2f}."
    if len(briefing.history) >= budget.rounds:
        return f"The budget of {plural(budget.rounds, 'round')} is used up."
    if budget.minutes is not None and spend.seconds >= budget.minutes * 60:
        return f"The budget of {plural(budget.minutes, 'minute')} is used up."
    if budget.train_tokens is not None and spend.train_tokens >= budget.train_tokens:
        return f"The budget of {budget.train_tokens:,} training tokens is used up."
    if budget.usd is not None and spend.usd > 0 and spend.usd >= budget.usd:
        return f"The budget of {budget.usd:g} USD is used up."
    if budget.llm_tokens is not None and spend.llm_tokens >= budget.llm_tokens:
        return f"The budget of {budget.llm_tokens:,} LLM tokens is used up."
    if briefing.closed and config.llm and config.llm.on_refusal == "stop":
        return f"The external LLM cannot be asked any more: {briefing.closed}."
    return None


def words_are_likely(briefing: Briefing) -> bool:
    """Whether an edit mends a failing row more likely than not, and none has failed on the present pair."""
    return briefing.signal.edit.fruitless == 0 and briefing.diagnosis.words_chance >= LIKELY


def trains_bare(signal: Signal, config: TaskConfig, history: Sequence[Round]) -> bool:
    """Whether to train without the few-shot examples of the best prompt, on rows that are several times shorter.

    So where the examples bring the form and hardly an answer beyond luck: weights learn that form along. After one of
    this kind that was taken back, again only if it rose within chance, or if its loss was still falling.
    """
    if not signal.few_shot or fitting_rows(signal, config) != "refined" or signal.teachable < TEACHABLE:
        return False
    failed = _taken_back(history)
    if failed and failed[0][1].bare:
        row, _ = failed[0]
        return row.verdict.gain > 0 or is_unfinished(row)
    return signal.known < WORTH_KEEPING and not any(move.bare for _, move in failed)


def _taken_back(history: Sequence[Round]) -> list[tuple[Round, TrainLora]]:
    """The trainings since anything was kept that were taken back, and not only for what they forget; the last first."""
    since = takewhile(lambda row: not row.verdict.kept, reversed(tried(history)))
    trained = ((row, row.decision.move) for row in since if not row.verdict.overruled)
    return [(row, move) for row, move in trained if isinstance(move, TrainLora)]


def is_unfinished(row: Round) -> bool:
    """Whether the round was a training that was taken back before its rows were learned, its loss still falling."""
    move, loss = row.decision.move, row.trial.loss
    if not isinstance(move, TrainLora) or row.verdict.kept or loss is None:
        return False
    return is_still_falling(row) and loss > max(move.enough, LEARNED_LOSS)


def is_still_falling(row: Round) -> bool:
    """Whether the round was a training whose loss was still falling at its end."""
    drop = row.trial.loss_drop
    return isinstance(row.decision.move, TrainLora) and drop is not None and drop >= FALLING


def training(
    config: TaskConfig, rows: Rows, fresh: bool = False, slower: bool = False, epochs: int = 0, bare: bool = False
) -> TrainLora:
    """LoRA as the task sets it; at half the rate, if slower; for so many epochs, if any are named."""
    lora = config.lora
    rate = max(lora.learning_rate * (0.5 if slower else 1.0), 1e-6)
    return TrainLora(
        rows=rows, epochs=epochs or lora.epochs, learning_rate=rate, rank=lora.rank, enough=lora.enough, fresh=fresh,
        bare=bare, replay=lora.replay,
    )  # fmt: skip


def remedied(action: TrainLora, history: Sequence[Round]) -> TrainLora:
    """The training, made to forget less where the last one forgot too much: anew, with twice its general rows.

    How many general rows a training needed, those after it have, too.
    """
    last = _last_training(history)
    if last is None:
        return action
    verdict, before = last
    usual = action.replay or 0.0
    used = usual if before.replay is None else before.replay  # a user or planner may name none: as the task sets it
    if verdict.objection:
        return action.model_copy(update={"fresh": True, "replay": min(MOST_REPLAY, max(2 * used, FIRST_REPLAY))})
    return action.model_copy(update={"replay": max(usual, used)})


def why_so(action: TrainLora, signal: Signal, history: Sequence[Round]) -> str:
    """Why the training is another than the task sets or the last one was, in sentences; else nothing."""
    return f"{_why_bare(action, signal, history)}{_why_longer(action, history)}{why_remedied(action, history)}"


def _why_bare(action: TrainLora, signal: Signal, history: Sequence[Round]) -> str:
    if not action.bare:
        return ""
    if signal.known >= WORTH_KEEPING:
        return " Like the last training, it does without few-shot examples."
    lucky = f" beyond the {signal.luck:.0%} that luck may bring" if signal.luck else ""
    return (
        f" Under its few-shot examples the model knows {signal.known:.0%} of the answers{lucky}, too few to pay for "
        "them in every row: it is trained without."
    )


def _why_longer(action: TrainLora, history: Sequence[Round]) -> str:
    failed = _taken_back(history)
    if not failed or not is_unfinished(failed[0][0]):
        return ""
    _, last = failed[0]
    if action.epochs <= last.epochs or action.bare != last.bare:
        return ""
    anew = " and starts anew" if action.fresh else ""
    return f" The last training was taken back while its loss still fell, so this one has {action.epochs} epochs{anew}."


def why_remedied(action: TrainLora, history: Sequence[Round]) -> str:
    """Why the training is another than the last one, in a sentence; empty where that did not forget too much."""
    last = _last_training(history)
    if last is None or not last[0].objection:
        return ""
    verdict, _ = last
    lost = f" ({verdict.drift:.2f} nats a token on general text)" if verdict.objection == "drift" else ""
    return (
        f" The last training forgot too much{lost}, so this one starts anew, with {action.replay or 0:g} general "
        "rows for each row."
    )


def _last_training(history: Sequence[Round]) -> tuple[Verdict, TrainLora] | None:
    """The last training of the run, and the verdict on it."""
    for row in reversed(tried(history)):
        if isinstance(row.decision.move, TrainLora):
            return row.verdict, row.decision.move
    return None


def rows_of_prompt(signal: Signal, config: TaskConfig) -> Rows:
    """The rows that belong to the prompt: as given with the seed prompt, remade with a refined one."""
    return "refined" if signal.refined and "remaking" not in config.without else "original"


def fitting_rows(signal: Signal, config: TaskConfig) -> Rows:
    """The rows to train on: in the wanted form, so that weights learn it along, or at least do not unlearn it.

    As given, where most of them cannot be remade, or where that would change none of them.
    """
    if "remaking" in config.without:
        return "original"
    gains = signal.shown < 1 and signal.remade >= TEACHABLE
    return "refined" if signal.refined or gains else "original"


def numbers(signal: Signal, diagnosis: Diagnosis) -> dict[str, float]:
    """What a decision shows that it rests on, to four places; without what is not known."""
    diagnosed = diagnosis.examples or not diagnosis.failing
    known = {
        "reward": signal.reward,
        "noise": signal.noise,
        "rows lacking style": diagnosis.share("style") if diagnosed else None,
        "rows lacking content": diagnosis.share("content") if diagnosed else None,
        "prompt gap": diagnosis.prompt_gap,
        "weight gap": diagnosis.weight_gap,
        "an edit's chance": diagnosis.words_chance if diagnosis.examples else None,
        "known": signal.known if signal.few_shot else None,
        "luck": signal.luck or None,
        "drift": signal.drift,
        "loss drop": signal.loss_drop,
        "gradient norm": signal.grad_norm,
        "last edit's gain": signal.edit.gain if signal.edit.rounds else None,
        "last LoRA gain": signal.lora.gain if signal.lora.rounds else None,
    }
    return {name: round(value, 4) for name, value in known.items() if value is not None}
