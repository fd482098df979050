"""The rules' reasons, clause by clause: each says no more than the numbers of its decision do."""

from agent.config.task import TaskConfig
from agent.policy.base import TEACHABLE, WORTH_A_ROUND, words_are_likely
from agent.protocols import Briefing
from agent.records.actions import TrainLora
from agent.records.signal import KNOWN_BELOW, LUCK_WORTH_SAYING, LeverSignal, Signal


def for_words(briefing: Briefing, config: TaskConfig) -> str:
    """Why the prompt is to be rewritten, where words may mend rows."""
    signal, diagnosis = briefing.signal, briefing.diagnosis
    content = diagnosis.share("content")
    sentences = [f"Content is at {signal.content:.2f}, style at {signal.style:.2f}.", reach_of_words(briefing, config)]
    if words_are_likely(briefing) and content > 0:
        sentences.append(f"An edit is given a chance of {diagnosis.words_chance:.0%} to mend a failing row.")
    if closed := closed_lever("LoRA", signal.lora, "train_lora" in briefing.refused):
        sentences.append(closed)
    elif content > 0 and signal.teachable < TEACHABLE:
        sentences.append(
            f"Only {signal.teachable:.0%} of the train answers have the wanted form or can be put into it, so words "
            "come before weights."
        )
    edit, lora = signal.edit.outlook, signal.lora.outlook
    if edit and lora and edit.cost < lora.cost:
        sentences.append(f"An edit is estimated at {edit.cost / lora.cost:.0%} of the cost of a training.")
    if signal.edit.rounds:
        sentences.append(f"The last edit changed the reward by {signal.edit.gain:+.2f}.")
    return " ".join(filter(None, sentences))


def for_weights(briefing: Briefing, config: TaskConfig, move: TrainLora) -> str:
    """Why the weights are to be tuned, where rows lack content."""
    signal, diagnosis = briefing.signal, briefing.diagnosis
    sentences = [f"{diagnosis.share('content'):.0%} of the rows lack content{knowledge(briefing)}."]
    if closed := closed_lever("Edits", signal.edit, "edit_prompt" in briefing.refused):
        sentences.append(closed)
    else:
        sentences.append(reach_of_words(briefing, config))
        if (lacking := diagnosis.share("style")) < WORTH_A_ROUND:
            few = f"Only {lacking:.0%} of the rows lack" if lacking else "No row lacks"
            sentences.append(f"{few} style, too few for an edit.")
    in_form = signal.shown if move.rows == "original" else signal.remade
    if in_form >= TEACHABLE and 1 - signal.style >= WORTH_A_ROUND:
        sentences.append(
            f"{in_form:.0%} of the train answers can be shown in the wanted form, so that weights learn style, now at "
            f"{signal.style:.2f}, along."
        )
    return " ".join(filter(None, [*sentences, loss(signal)]))


def knowledge(briefing: Briefing) -> str:
    """What the probe says of the answers that were wrong, in brackets; by the rewards alone it says nothing."""
    diagnosis, known = briefing.diagnosis, []
    gap = diagnosis.weight_gap
    if gap is not None:
        side = "below" if gap < KNOWN_BELOW else "not below"
        known.append(f"{_likely(gap, briefing.signal)}: weight gap {gap:.2f} nats a token, {side} {KNOWN_BELOW}")
    if diagnosis.confidence is not None:
        known.append(f"an edit is given a chance of {diagnosis.words_chance:.0%} to mend a failing row")
    return f" ({'; '.join(known)})" if known else ""


def _likely(gap: float, signal: Signal) -> str:
    """What it says that the probed answers are likely, or are not."""
    if gap >= KNOWN_BELOW:
        return "the model hardly knows the probed answers"
    if signal.luck >= LUCK_WORTH_SAYING:
        return f"likely answers show no knowledge where one alone is right for {signal.luck:.0%}"
    return "the model may know the probed answers"


def reach_of_words(briefing: Briefing, config: TaskConfig) -> str:
    """What words alone are expected to reach: the rows that do not lack content, as they are diagnosed."""
    most, luck = 1 - briefing.diagnosis.share("content"), briefing.signal.luck
    lucky = f"; lucky guesses among the failing ones are left out, as one answer alone is right for {luck:.0%}"
    counted = luck >= LUCK_WORTH_SAYING and briefing.diagnosis.by != "rewards"
    return (
        f"Words alone may get {most:.0%} of the rows right, as they are diagnosed"
        f"{lucky if counted else ''}; the target is {config.target:.2f}."
    )


def closed_levers(briefing: Briefing) -> str:
    """Why edits and LoRA are closed, a sentence each; empty where both are open."""
    signal, refused = briefing.signal, briefing.refused
    edits = closed_lever("Edits", signal.edit, "edit_prompt" in refused)
    return f"{edits} {closed_lever('LoRA', signal.lora, 'train_lora' in refused)}".strip()


def closed_lever(name: str, lever: LeverSignal, refused: bool) -> str:
    """Why a lever is closed, in a sentence; empty where it is open."""
    if refused:
        return f"{name} {'was' if name == 'LoRA' else 'were'} turned down."
    if not lever.saturated:
        return ""
    return f"{name} {'is' if name == 'LoRA' else 'are'} saturated: {nothing_kept(lever)}."


def nothing_kept(lever: LeverSignal) -> str:
    """How often a lever was tried since anything was kept, as the reason why it is saturated."""
    return f"nothing was kept of {'the last try' if lever.discarded == 1 else f'the last {lever.discarded} tries'}"


def loss(signal: Signal) -> str:
    """How the last training ended, in a sentence; empty where that is not known."""
    if signal.loss_drop is None:
        return ""
    way = "fell" if signal.loss_drop >= 0 else "rose"
    return f"The loss of the last training {way} by {abs(signal.loss_drop):.0%} in its last epoch."
