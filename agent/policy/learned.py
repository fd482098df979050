"""The learned switch: what each lever promises, corrected by experience; then the most merit for what it takes."""

import random
from collections.abc import Iterator, Sequence
from math import hypot
from typing import NamedTuple

from agent.config.task import TaskConfig
from agent.policy.base import fitting_rows, numbers, stop_reason, why_so
from agent.policy.experience import Experience, distinct
from agent.policy.regression import Fit, Observation
from agent.policy.rules import Rules
from agent.protocols import Briefing
from agent.records.actions import Alternative, Decision, EditPrompt, Stop, TrainLora
from agent.records.signal import LeverSignal, Outlook, Signal
from agent.signal.outlook import MISCLASSIFIED, TRY_SPREAD, YIELD, YIELD_SPREAD

# How much a round of another model counts: it learns otherwise, as far as anybody knows.
OTHER_MODEL = 0.3
# The prior's deviation of each feature's coefficient, in yield: of what is there (the yield's own); of fruitless tries,
# of a refined prompt, of style, of a saturated lever, each of which may move a yield by half of that; and of what is
# not thought to be this lever's to mend, as far as the classifier may be mistaken.
SPREADS = (YIELD_SPREAD, *[YIELD_SPREAD / 2] * 4, MISCLASSIFIED)
# How far from the mean a draw goes, in posterior deviations: half, as Chapelle & Li (2011) found better than all.
EXPLORED = 0.5
# A lever is given up when not even a try that goes so many deviations better than expected would pass the noise floor.
HOPE = 2.0


class Promise(NamedTuple):
    """What an action is expected to gain (merit) and to take (forward tokens).

    `drawn` is the gain drawn for it, `possible` what a single lucky try may gain; `failed`: its last try on the present
    pair brought nothing.
    """

    action: EditPrompt | TrainLora
    gain: float
    spread: float
    cost: float
    drawn: float
    possible: float
    failed: bool


class Learned:
    """Chooses by expected gain per cost. Without experience, by the outlook alone.

    Args:
        experience: rounds of other runs; lines of one round count once, and their order does not matter.
    """

    name = "learned"

    def __init__(self, config: TaskConfig, experience: Sequence[Experience] = ()) -> None:
        self._config = config
        self._rules = Rules(config)
        self._experience = () if "memory" in config.without else distinct(experience)

    def decide(self, briefing: Briefing) -> Decision:
        """Reproducible: draws depend on the seed and on the number of the round alone."""
        rules = self._rules.decide(briefing)
        alternative = Alternative(action=rules.move, reason=rules.reason)
        if stop_reason(briefing, self._config) or not (
            briefing.signal.edit.outlook and briefing.signal.lora.outlook
        ):  # without an outlook there is nothing to weigh
            return rules.model_copy(update={"by": "learned", "alternative": alternative})
        promises, floor = self.promises(briefing), briefing.signal.floor
        action, why = _chosen(promises, floor)
        promised = outlook_numbers(briefing.signal)
        for promise in promises:
            name = "edit" if isinstance(promise.action, EditPrompt) else "LoRA"
            promised |= {f"{name} promise": promise.gain, f"{name} drawn": promise.drawn}
        promised = {name: round(value, 4) for name, value in promised.items()}
        if isinstance(action, TrainLora):
            why += why_so(action, briefing.signal, briefing.history)
        return Decision(
            move=action,
            reason=f"{in_words(promises)} {why}".strip(),
            numbers={**numbers(briefing.signal, briefing.diagnosis), **promised},
            by="learned",
            alternative=alternative,
        )

    def promises(self, briefing: Briefing) -> list[Promise]:
        """Of the levers that are open: neither saturated nor turned down."""
        generator = random.Random(f"{self._config.seed}-{len(briefing.history)}")
        # As the rules would pull them. (A training ends by itself once its rows are learned.)
        training = self._rules.training(briefing.signal, briefing.history)
        levers: list[tuple[EditPrompt | TrainLora, LeverSignal]] = [
            (EditPrompt(), briefing.signal.edit), (training, briefing.signal.lora),
        ]  # fmt: skip
        promises = []
        for action, lever in levers:
            draw = generator.gauss(0, 1)  # for a closed lever too, so that the other's draw does not depend on it
            if lever.outlook and not lever.saturated and action.action not in briefing.refused:
                promises.append(self._promise(action, lever.outlook, briefing, draw, failed=lever.fruitless > 0))
        return promises

    def _promise(
        self, action: EditPrompt | TrainLora, outlook: Outlook, briefing: Briefing, draw: float, *, failed: bool
    ) -> Promise:
        """The outlook, moved and narrowed by what such rounds brought; `draw` is of a standard normal."""
        now = Experience(
            run="", number=0, task="", model="", signal=briefing.signal, move=action, gain=0, cost=0, kept=False,
            shares=briefing.diagnosis.shares,
        )  # fmt: skip
        fit = Fit(SPREADS, self._observations(action.action))
        features = _features(now)
        gain, spread = min(1.0, outlook.gain + fit.expected(features)), outlook.spread * fit.narrowed(features)
        lucky = HOPE * hypot(spread, TRY_SPREAD * now.mendable)
        drawn = gain + EXPLORED * spread * draw
        return Promise(action, gain, spread, max(1.0, outlook.cost), drawn, gain + lucky, failed)

    def _observations(self, action: str) -> Iterator[Observation]:
        """Rounds of this lever in other runs, against what was promised then. This run's are in the outlook already.

        Each is seen with the scatter of a try on what was there, and with the noise of the rows.
        """
        for line in (line for line in self._experience if line.move.action == action):
            outlook = _lever(line).outlook
            # A fixed order may have trained on other rows than the outlook was about.
            meant = isinstance(line.move, EditPrompt) or line.move.rows == fitting_rows(line.signal, self._config)
            promised = outlook.merit if outlook and meant else YIELD * line.mendable
            variance = (TRY_SPREAD * line.mendable) ** 2 + max(line.signal.floor, 0.01) ** 2
            weight = 1.0 if line.model == self._config.model else OTHER_MODEL
            yield Observation(_features(line), line.gain - promised, variance / weight)


def _features(line: Experience) -> list[float]:
    """Each times the merit that it may move: a yield is a share of that. Signal numbers are in [0, 1]."""
    lever, signal = _lever(line), line.signal
    seen = (1.0, min(lever.fruitless, 2) / 2, float(signal.refined), signal.style, float(lever.saturated))
    return [*(line.mendable * value for value in seen), line.not_mendable]


def _lever(line: Experience) -> LeverSignal:
    return line.signal.edit if isinstance(line.move, EditPrompt) else line.signal.lora


def _chosen(promises: Sequence[Promise], floor: float) -> tuple[EditPrompt | TrainLora | Stop, str]:
    """Of what reaches the noise floor, the most merit for what it takes; else of what may still reach it; else stop."""
    if not promises:
        return Stop(), "Both levers are saturated or turned down."
    dearest = max(promise.cost for promise in promises)
    drawn = [promise for promise in promises if promise.drawn >= floor and promise.drawn > 0]
    if drawn:
        best = max(drawn, key=lambda promise: promise.drawn / _taken(promise, dearest))
        return best.action, _why_drawn(best, promises, floor, dearest)
    hopeful = [promise for promise in promises if promise.possible > floor]
    if hopeful:
        best = max(hopeful, key=lambda promise: promise.possible / _taken(promise, dearest))
        return best.action, f"No gain drawn around that reaches the noise floor of {floor:.2f}, but a lucky try may."
    return Stop(), f"Even a lucky try would not pass the noise floor of {floor:.2f}."


def _taken(promise: Promise, dearest: float) -> float:
    """What a gain is divided by: tokens, and the round, which counts as the dearest open lever's tokens.

    Rounds are limited too, and one that keeps nothing leaves the gate less of alpha: else cheap tries that gain little
    would use up what a dear one needs. A lever that has just failed is not taken for being cheap.
    """
    return (dearest if promise.failed else promise.cost) + dearest


def _why_drawn(best: Promise, promises: Sequence[Promise], floor: float, dearest: float) -> str:
    """Why the lever with the best draw is taken: what it promises itself, or how unsure that is."""
    counted = [promise for promise in promises if promise.gain >= floor and promise.gain > 0]
    expected = max(counted, key=lambda promise: promise.gain / _taken(promise, dearest), default=None)
    name, other = ("words", "weights") if isinstance(best.action, EditPrompt) else ("weights", "words")
    if len(promises) == 1:
        return f"No other lever is open than {name}."
    if expected is None:
        return f"Neither promises more than the noise floor of {floor:.2f}; {name} are unsure enough to be worth a try."
    if expected.action != best.action:
        return f"By that {other} come first, but the gains drawn around it, as wide as it is unsure, favour {name}."
    if len(counted) == 1:
        return f"Only {name} promise as much as the noise floor of {floor:.2f}."
    cheap = any(promise.failed and promise.cost < dearest for promise in promises)
    failed = ", and a lever that failed last no cheaper than the other" if cheap else ""
    return (
        f"So {name} promise the most merit for what they take, a round of the budget ({short(dearest)}) "
        f"counted{failed}."
    )


def in_words(promises: Sequence[Promise]) -> str:
    """What is promised, in a sentence; empty where no lever is open."""
    parts = [
        f"{'an edit' if isinstance(promise.action, EditPrompt) else 'LoRA'}{' promises' if first else ''} "
        f"{promise.gain:+.2f} ± {promise.spread:.2f} merit for {short(promise.cost)} forward tokens"
        for promise, first in zip(promises, (True, False), strict=False)
    ]
    sentence = ", ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}." if sentence else ""


def short(forward_tokens: float) -> str:
    """A cost as people write it: 850, 2k, 41k, 1.2M."""
    if forward_tokens >= 999_500:
        return f"{forward_tokens / 1e6:.1f}M"
    return f"{forward_tokens / 1e3:.0f}k" if forward_tokens >= 1_000 else f"{forward_tokens:.0f}"


def outlook_numbers(signal: Signal) -> dict[str, float]:
    """The noise floor and both outlooks, by the names that a decision gives them."""
    named = {"noise floor": signal.floor}
    for name, lever in (("edit", signal.edit), ("LoRA", signal.lora)):
        if lever.outlook:
            named |= {f"{name} outlook": lever.outlook.gain, f"{name} spread": lever.outlook.spread}
            named |= {f"{name} forward tokens": lever.outlook.cost}
            named |= {f"{name} drift": lever.outlook.drift} if lever.outlook.drift else {}
    return named
