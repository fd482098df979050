"""Which lever next: rules over signal and diagnosis, and fixed orders to compare them with."""

from collections.abc import Sequence

from agent.config import PolicyName, TaskConfig
from agent.moves import Decision, EditPrompt, Move, Stop, TrainLora
from agent.protocols import Briefing, Policy
from agent.records import Diagnosis, Rows, Signal
from agent.rounds import Round

# Lacks of fewer rows than this are left to the other lever.
WORTH_A_ROUND = 0.1


def make_policy(config: TaskConfig) -> Policy:
    """The policy that a task names."""
    return Rules(config) if config.policy == "rules" else FixedOrder(config.policy, config)


class Rules:
    """The paper's switch: rewrite where form is missing and edits still pay; else train where content is missing.

    Words come first because they cost a hundredth of a LoRA round, and because weights trained on answers in the
    wrong form no longer listen to the prompt; rows remade with the refined prompt teach content and form at once.
    """

    name = "rules"

    def __init__(self, config: TaskConfig) -> None:
        self._config = config

    def decide(self, briefing: Briefing) -> Decision:
        signal, diagnosis, refused = briefing.signal, briefing.diagnosis, briefing.refused
        style, content = diagnosis.share("style"), diagnosis.share("content")
        numbers = _numbers(signal, diagnosis)
        if ended := stop_reason(briefing, self._config):
            return Decision(move=Stop(), reason=ended, numbers=numbers)
        edit_open = not signal.edit.saturated and "edit_prompt" not in refused
        lora_open = not signal.lora.saturated and "train_lora" not in refused
        if edit_open and style >= WORTH_A_ROUND:
            reason = (
                f"{style:.0%} of the rows lack style, and words are the cheap way to mend that{_edits_so_far(signal)}."
            )
            return Decision(move=EditPrompt(), reason=reason, numbers=numbers)
        if lora_open and content > 0:
            reason = (
                f"{content:.0%} of the rows lack content{_gap(diagnosis)}, which only weights can give{_loss(signal)}."
            )
            return Decision(move=self.training(signal, briefing.history), reason=reason, numbers=numbers)
        if edit_open:
            why = "LoRA is saturated" if signal.lora.saturated else "LoRA has nothing to mend or was turned down"
            return Decision(move=EditPrompt(), reason=f"{why}, and edits have not been exhausted.", numbers=numbers)
        if lora_open:
            edits = "Edits bring little now" if signal.edit.saturated else "Edits were turned down"
            reason = f"{edits}, and LoRA has not been exhausted{_loss(signal)}."
            return Decision(move=self.training(signal, briefing.history), reason=reason, numbers=numbers)
        return Decision(move=Stop(), reason=_plateau(refused), numbers=numbers)

    def training(self, signal: Signal, history: Sequence[Round]) -> TrainLora:
        """LoRA as the task sets it: on refined rows once the prompt is; anew where the rows changed or a try failed."""
        rows = _rows(signal)
        earlier = [row for row in history if isinstance(row.decision.move, TrainLora)]
        last = earlier[-1] if earlier else None
        fresh = last is not None and (not last.verdict.kept or _rows_of(last) != rows)
        failed = last is not None and not last.verdict.kept
        return _training(self._config, rows, fresh=fresh, slower=failed)


class FixedOrder:
    """Ignores the signal: the letters of its order (p: prompt, w: weights) share the budget's rounds equally."""

    def __init__(self, order: PolicyName, config: TaskConfig) -> None:
        self.name = order
        self._config = config
        letters = {"lora-only": "w", "prompt-only": "p"}.get(order) or order.replace(" ", "").replace("->", "")
        self._phases = letters

    def decide(self, briefing: Briefing) -> Decision:
        signal, history = briefing.signal, briefing.history
        numbers = _numbers(signal, briefing.diagnosis)
        if ended := stop_reason(briefing, self._config):
            return Decision(move=Stop(), reason=ended, numbers=numbers, by="fixed order")
        move = self._move(signal, history)
        if move.action in briefing.refused:
            return Decision(
                move=Stop(), reason="The fixed order's next step was turned down.", numbers=numbers, by="fixed order"
            )
        reason = f"The fixed order {self.name} says so for round {len(history) + 1} of {self._config.budget.rounds}."
        return Decision(move=move, reason=reason, numbers=numbers, by="fixed order")

    def _move(self, signal: Signal, history: Sequence[Round]) -> Move:
        phase = len(history) * len(self._phases) // self._config.budget.rounds
        if self._phases[phase] == "p":
            return EditPrompt()
        return _training(self._config, _rows(signal))


def stop_reason(briefing: Briefing, config: TaskConfig) -> str | None:
    """Why the run is over whatever a policy thinks: target reached, a budget used up, no LLM where one is needed."""
    budget, spend, reward = config.budget, briefing.spend, briefing.signal.reward
    if reward >= config.target:
        return f"The target is reached: validation reward {reward:.2f}, target {config.target:.2f}."
    if len(briefing.history) >= budget.rounds:
        rounds = "1 round" if budget.rounds == 1 else f"{budget.rounds} rounds"
        return f"The budget of {rounds} is used up."
    if budget.minutes is not None and spend.seconds >= budget.minutes * 60:
        return f"The budget of {budget.minutes:g} minutes is used up."
    if budget.train_tokens is not None and spend.train_tokens >= budget.train_tokens:
        return f"The budget of {budget.train_tokens:,} training tokens is used up."
    if budget.usd is not None and spend.usd > 0 and spend.usd >= budget.usd:
        return f"The budget of {budget.usd:g} USD is used up."
    if briefing.closed and config.llm and config.llm.on_refusal == "stop":
        return f"The external LLM is not to be had: {briefing.closed}."
    return None


def _training(config: TaskConfig, rows: Rows, fresh: bool = False, slower: bool = False) -> TrainLora:
    rate = config.lora.learning_rate * (0.5 if slower else 1.0)
    return TrainLora(
        rows=rows, epochs=config.lora.epochs, learning_rate=max(rate, 1e-6), rank=config.lora.rank, fresh=fresh
    )


def _rows(signal: Signal) -> Rows:
    return "refined" if signal.refined else "original"


def _rows_of(row: Round) -> Rows | None:
    return row.decision.move.rows if isinstance(row.decision.move, TrainLora) else None


def _numbers(signal: Signal, diagnosis: Diagnosis) -> dict[str, float]:
    known = {
        "reward": signal.reward,
        "noise": signal.noise,
        "rows lacking style": diagnosis.share("style"),
        "rows lacking content": diagnosis.share("content"),
        "prompt gap": diagnosis.prompt_gap,
        "weight gap": diagnosis.weight_gap,
        "loss drop": signal.loss_drop,
        "gradient norm": signal.grad_norm,
        "last edit's gain": signal.edit.gain if signal.edit.rounds else None,
        "last LoRA gain": signal.lora.gain if signal.lora.rounds else None,
    }
    return {name: round(value, 4) for name, value in known.items() if value is not None}


def _edits_so_far(signal: Signal) -> str:
    return f" (the last edit gained {signal.edit.gain:+.2f})" if signal.edit.rounds else ""


def _gap(diagnosis: Diagnosis) -> str:
    gap = diagnosis.weight_gap
    return "" if gap is None else f" ({gap:.1f} nats per answer token stay whatever the words)"


def _loss(signal: Signal) -> str:
    return "" if signal.loss_drop is None else f"; the last epoch lowered the loss by {signal.loss_drop:.0%}"


def _plateau(refused: Sequence[str]) -> str:
    if refused:
        return "What was left to try has been turned down."
    return "Plateau: the last tries of both levers brought nothing beyond noise."
