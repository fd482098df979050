"""How far an LLM planner is to be trusted: what its own choices brought, beside what the rules' were expected to bring.

A choice is the planner's *own* where it differs from the rules' in the lever, or in settings that matter: which rows,
with few-shot examples or without, how many general rows beside them, a new adapter, how many epochs. Where it agrees, a
round says nothing about it.

The estimate: what own choices bring beyond the rules' promise, in merit a round, is normal with mean 0 and standard
deviation `SCATTER` before any is seen (they are as good as the rules'). A round's gain less the outlook of the rules'
action is one observation of it. Its variance is that of the outlook, and of rounds about theirs:

    v = spread² + SCATTER²,    precision = 1 / SCATTER² + Σ w / v,    mean = (Σ w · (gain − promise) / v) / precision

(normal with known variances: Gelman et al., Bayesian Data Analysis, section 2.5). Trust is the chance that this mean is
above 0: Φ(mean · √precision). It is 0.5 before any own choice. One that brings nothing where 0.4 ± 0.24 was promised
leaves 0.24, a second one 0.11; small stakes move it little.
"""

from collections.abc import Iterable, Sequence
from math import sqrt
from statistics import NormalDist, fmean
from typing import NamedTuple

from agent.config.task import TaskConfig
from agent.counting import plural
from agent.policy.base import fitting_rows
from agent.policy.experience import Experience
from agent.policy.learned import short
from agent.records.actions import Action, Objection, Standing, Stop, TrainLora
from agent.records.rounds import Round
from agent.records.signal import Diagnosis, LeverSignal, Outlook, Signal
from agent.signal.monitor import Lever, lever_signal
from agent.signal.outlook import lever_yield, mendable, realised_gain

# Merit. So do gains of rounds scatter about their outlook: 0.22 over the fifty of tasks/practice/experience.jsonl.
SCATTER = 0.2
# Own choices of other runs count together as one round at most: each run gives a planner a chance, a poor record only a
# short one.
OTHER_RUNS = 1.0
# Trust below which a planner is told what its own choices brought, and may not keep a plan that was objected to; and
# below which it is overruled.
EVEN, LEAST = 0.5, 0.15
# Share of what the rules' action promises, below which a plan is objected to: rows as given often promise just half of
# refined ones.
POOR = 0.6
NOTHING = Outlook(gain=0.0, spread=0.0, cost=0.0)


class OwnChoice(NamedTuple):
    """What one of the planner's own choices brought (merit) and took, and what the rules' action promised instead."""

    gain: float
    cost: float
    promise: Outlook

    @property
    def beyond(self) -> float:
        """Merit that it brought beyond the promise."""
        return self.gain - self.promise.merit

    @property
    def variance(self) -> float:
        return self.promise.spread**2 + SCATTER**2


def own_choices(history: Sequence[Round]) -> list[OwnChoice]:
    """The planner's own choices among a run's rounds, in order."""
    return [
        OwnChoice(
            realised_gain(row), row.trial.spend.forward_tokens,
            outlook_of(would, unhindered(row.signal, history[:place])),
        )
        for place, row in enumerate(history)
        if (would := rules_instead(row))
    ]  # fmt: skip


def own_choices_elsewhere(llm: str, experience: Iterable[Experience]) -> list[OwnChoice]:
    """Those of the LLM with this name in other runs, whatever their tasks."""
    return [
        OwnChoice(line.gain, line.cost, outlook_of(line.instead_of, line.signal))
        for line in experience
        if line.planner == llm and line.instead_of and differs(line.move, line.instead_of, line.signal)
    ]


def rules_instead(row: Round) -> Action | None:
    """What the rules would have done in a round of the planner's own choice; None in every other round."""
    if row.trial.cancelled:
        return None
    decision = row.decision
    would = decision.alternative.action if decision.by == "planner" and decision.alternative else None
    return would if would and differs(decision.move, would, row.signal) else None


def differs(action: Action, other: Action, signal: Signal) -> bool:
    """Whether two actions differ in the lever or in settings that matter."""
    if not (isinstance(action, TrainLora) and isinstance(other, TrainLora)):
        return action.action != other.action
    anew = signal.lora.kept > 0 and action.fresh != other.fresh  # before there is an adapter, all start anew
    shorter = signal.few_shot and action.bare != other.bare  # a prompt without few-shot examples has none to give up
    forgets = None not in (action.replay, other.replay) and action.replay != other.replay
    return anew or shorter or forgets or (action.rows, action.epochs) != (other.rows, other.epochs)


def outlook_of(action: Action, signal: Signal) -> Outlook:
    """What the rules' action promises: its lever's outlook; nothing for a stop, or where there is no outlook."""
    lever = {"train_lora": signal.lora, "edit_prompt": signal.edit}.get(action.action, LeverSignal())
    return lever.outlook or NOTHING


def unhindered(signal: Signal, history: Sequence[Round]) -> Signal:
    """The signal as if the planner's own choices that were taken back had not been made.

    A training that could not work would else count as a fruitless try of the lever: the rules would promise less, and
    in the end not pull it any more.
    """
    clear = without_failed_choices(history)
    if len(clear) == len(history):
        return signal
    return signal.model_copy(
        update={
            "lora": _unhindered(signal.lora, "train_lora", clear, history),
            "edit": _unhindered(signal.edit, "edit_prompt", clear, history),
        }
    )


def without_failed_choices(history: Sequence[Round]) -> list[Round]:
    """The rounds without the planner's own choices that were taken back."""
    return [row for row in history if row.verdict.kept or not rules_instead(row)]


def _unhindered(now: LeverSignal, lever: Lever, clear: Sequence[Round], history: Sequence[Round]) -> LeverSignal:
    outlook = now.outlook
    if outlook:
        outlook = _scaled(outlook, lever_yield(lever, clear)[0] / lever_yield(lever, history)[0])
    return lever_signal(lever, clear).model_copy(update={"outlook": outlook})


def standing(llm: str, history: Sequence[Round], experience: Iterable[Experience] = ()) -> Standing:
    """The standing of this LLM as planner before a round.

    Args:
        history: this run's rounds.
        experience: rounds of other runs.
    """
    own, others = own_choices(history), own_choices_elsewhere(llm, experience)
    weight = min(1.0, OTHER_RUNS / len(others)) if others else 0.0
    return Standing(
        llm=llm,
        trust=trust_in([*((choice, 1.0) for choice in own), *((choice, weight) for choice in others)]),
        rounds=len(own),
        gained=sum(choice.gain for choice in own),
        promised=sum(choice.promise.merit for choice in own),
        cost=sum(choice.cost for choice in own),
        promised_cost=sum(choice.promise.cost for choice in own),
        elsewhere=len(others),
        beyond_elsewhere=fmean(choice.beyond for choice in others) if others else 0.0,
    )


def trust_in(choices: Iterable[tuple[OwnChoice, float]]) -> float:
    """The chance that such choices bring no less than was promised; each with how much it counts."""
    precision, total = 1 / SCATTER**2, 0.0
    for choice, counts in choices:
        precision += counts / choice.variance
        total += counts * choice.beyond / choice.variance
    return NormalDist().cdf(total / sqrt(precision))


# --- a plan, before it is carried out --------------------------------------------------------------


def objection(
    action: Action, rules: Action, reason: str, signal: Signal, diagnosis: Diagnosis, config: TaskConfig
) -> Objection | None:
    """What speaks against a plan by the run's own numbers, or None.

    The rules' action promises more, beyond the noise floor; and the plan promises nothing that could be told from
    noise, or less than `POOR` of what the rules' does, for a worse price.
    """
    would = outlook_of(rules, signal)
    promise = promise_of(action, signal, diagnosis, config)
    if not differs(action, rules, signal) or would.gain < signal.floor or would.gain - promise.gain <= signal.floor:
        return None
    poor = promise.gain < POOR * would.gain and promise.gain * would.cost < would.gain * promise.cost
    if not poor and promise.gain >= signal.floor:
        return None
    return Objection(planned=action, reason=reason, gain=promise.gain, rules_gain=would.gain)


def promise_of(action: Action, signal: Signal, diagnosis: Diagnosis, config: TaskConfig) -> Outlook:
    """What an action promises: its lever's outlook, as far as its rows can mend what that counts on."""
    promised = outlook_of(action, signal)
    if not isinstance(action, TrainLora):
        return promised
    most = mendable(TrainLora(rows=fitting_rows(signal, config)), diagnosis, signal).merit
    share = mendable(action, diagnosis, signal).merit / most if most else 1.0
    return _scaled(promised, share)


def _scaled(outlook: Outlook, share: float) -> Outlook:
    """The outlook on so much merit, at the same price of what is forgotten."""
    gain = outlook.merit * share - outlook.price * outlook.drift
    return outlook.model_copy(update={"gain": gain, "spread": outlook.spread * share})


def may_insist(action: Action, now: Standing) -> bool:
    """Whether a plan that was objected to is carried out if the planner keeps it.

    A stop is final, so it takes own choices that brought more than the rules' promised.
    """
    return now.trust > EVEN if isinstance(action, Stop) else now.trust >= EVEN


# --- in words -------------------------------------------------------------------------------------


def in_words(now: Standing) -> str:
    """What a standing rests on, in a sentence with its numbers."""
    parts = []
    if now.rounds:
        choices = plural(now.rounds, "own choice")
        parts.append(
            f"its {choices} in this run brought {now.gained:+.2f} merit for {short(now.cost)} forward tokens, where "
            f"the rules' were expected to bring {now.promised:+.2f} for {short(now.promised_cost)}"
        )
    if now.elsewhere:
        choices = plural(now.elsewhere, "own choice")
        parts.append(f"{choices} in other runs brought {now.beyond_elsewhere:+.2f} a round beside that promise")
    return f"{'; '.join(parts) or 'no choice of its own so far'} (trust {now.trust:.2f})"
