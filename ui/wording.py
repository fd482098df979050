"""How every face says the same thing: rewards, times, levers, costs."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from agent.counting import plural as plural
from agent.policy.learned import short
from agent.records.actions import Action, Rollback
from agent.records.rounds import (
    KeptScore,
    Outcome,
    Proposal,
    Remaking,
    Role,
    Round,
    SameAnswer,
    Spend,
    SplitResult,
    Usage,
    Verdict,
)
from agent.records.signal import KNOWN_BELOW, Outlook

if TYPE_CHECKING:
    from graphs.approval import Cost

LEVERS = {"train_lora": "LoRA", "edit_prompt": "edit", "rollback": "rollback", "stop": "stop"}
MARKS = {"train_lora": "●", "edit_prompt": "◆", "rollback": "↺", "stop": "■"}
GLOSSARY = {
    "joint reward": "content × style, from 0 to 1: an output counts as far as it is right and has the wanted form",
    "content": "the part of the reward for being right",
    "style": "the part of the reward for having the wanted form",
    "prompt gap": "loss that demonstrations take away, in nats per token of the reference: words may mend it",
    "weight gap": "loss that stays on the answer when form and demonstrations are given: from "
    f"{KNOWN_BELOW} nats a token on, the model hardly knows the answer",
    "nats": "unit of loss: at 0.7 nats a token the model gives the wanted token one chance in two, at 5 one in 150",
    "lever": "what a round can change: the prompt (an edit) or the weights (a LoRA training)",
    "saturated": "a lever whose last tries, since anything was kept, brought nothing that was kept",
    "refined rows": "train rows with their answers put into the wanted form, under the present prompt",
    "luck": "share of the other train rows that one and the same train answer gets right: what a guess may earn",
    "known": "content beyond luck: (content − luck) / (1 − luck)",
    "noise": "standard error of the validation reward, in reward: smaller differences mean little",
    "noise floor": "roughly the smallest gain in merit that so many validation rows can tell from chance; the gate "
    "itself is stricter",
    "outlook": "merit that a lever promises if it is used now, ± one standard deviation, and what it costs",
    "forward tokens": "cost of a step on any machine: a token generated or read counts as one, a trained one as three",
    "drift": "nats per token lost on forty general texts, against the bare model: what a gain in weights has cost "
    "elsewhere; more than gate.drift is taken back",
    "kept task": "another task that new weights must not lose: the bare model's reward there, and that of the weights",
    "promise": "the outlook's gain, as experience with other runs corrects it, in merit",
    "drawn": "a gain drawn at random around the promise, as wide as that is uncertain; the lever with the best draw a "
    "token is used, so that what is uncertain gets tried (Thompson sampling)",
    "merit": "mean of reward, content and style, from 0 to 1: it shows progress where the product is still 0",
    "level": "the largest p with which a change is kept: a part of gate.alpha, less after each that was not",
    "rows that did not choose it": "the validation rows on which a prompt was not compared with others before",
    "p": "how often chance alone would show such a difference between the pair before and the changed one (paired "
    "sign-flip test, one-sided)",
}
SORTERS = {"rewards": "the two rewards alone", "rules": "rules over the probe", "model": "the classifier"}
PARTS = {
    "system": "system text",
    "demos": "demonstrations",
    "questions": "questions",
    "retrieval": "retrieved few-shot examples",
}
NOT_KNOWN = "–"
ANSWER = 60  # characters of an answer that a sentence shows
BLOCKS = "▁▂▃▄▅▆▇█"


def lever(action: Action) -> str:
    """One word for an action."""
    return LEVERS[action.action]


def mark(action: Action) -> str:
    """The sign of an action, the same in charts, tables and terminal."""
    return MARKS[action.action]


def number(value: float | None, digits: int = 2) -> str:
    """A number to `digits` places; a dash where there is none (None, NaN, infinity). Never a bare `-0.00`."""
    if value is None or not math.isfinite(value):
        return "–"
    if value and abs(value) < 0.5 * 10**-digits:
        return f"{value:.1e}"
    return f"{value:,.{digits}f}".replace("-", "−")


def figure(value: float | None) -> str:
    """A number of unknown scale, to about three digits: 12, 0.25, 0.001."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.3g}"


def signed(value: float) -> str:
    """A difference of rewards with its sign."""
    return f"{value:+.2f}".replace("-", "−") if math.isfinite(value) else "–"


def percent(share: float) -> str:
    return f"{share:.0%}"


def p_value(value: float) -> str:
    """A p-value as readers of papers know it."""
    if not math.isfinite(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def evidence(verdict: Verdict) -> str:
    """The p-value that decided, of what, where it is not the joint reward's, and the level that it missed."""
    level, said = verdict.level, list[str]()
    if verdict.measure != "reward":
        said.append(verdict.measure)
    if level and not verdict.kept and verdict.p_value > level:
        said.append(f"level {_floored(level)}")
    return p_value(verdict.p_value) + (f" ({', '.join(said)})" if said else "")


def _floored(level: float) -> str:
    """A level to two digits, never above what it is: a p-value that missed it must not look smaller."""
    unit = 10 ** (math.floor(math.log10(level)) - 1)
    return f"{math.floor(level / unit + 1e-9) * unit:.2g}"


def duration(seconds: float) -> str:
    """Wall-clock seconds as `0.4 s`, `48 s`, `4 min 12 s` or `2 h 05 min`."""
    if not math.isfinite(seconds):
        return "–"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest:02} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02} min"


def money(usd: float) -> str:
    """USD to the cent, and below a dollar to three figures: what was paid never reads as nothing."""
    if not math.isfinite(usd):
        return "–"
    if abs(usd) >= 0.995 or not usd:
        return f"${usd:,.2f}"
    digits = 2 - math.floor(math.log10(abs(usd)))
    whole, _, cents = f"{usd:.{digits}f}".partition(".")
    return f"${whole}.{cents.rstrip('0').ljust(2, '0')}"


def kept(row: Round) -> str:
    """What became of a round's trial. An older pair that stands again is no gain, also where the user asked for it."""
    if not row.verdict.kept:
        return "taken back"
    if isinstance(row.decision.move, Rollback):
        return "went back, as asked" if row.decision.by == "user" else "went back"
    return "kept"


def gained(row: Round) -> bool:
    """Whether a round's trial was kept as better than what stood before."""
    return row.verdict.kept and not isinstance(row.decision.move, Rollback)


def raced(proposal: Proposal, present: Proposal) -> str:
    """What a proposal changed, and where it fell out of the race, if the present prompt was scored on more rows."""
    fell_out = proposal.merit is not None and proposal.rows < present.rows
    return f"{proposal.note} (dropped after {plural(proposal.rows, 'row')})" if fell_out else proposal.note


def action_cost(cost: "Cost | str") -> str:
    """What an action will take at most, before it is approved."""
    if isinstance(cost, str):  # a question of a version that did not ask in numbers
        return cost
    parts = []
    if cost.epochs:
        parts.append(f"{cost.epochs} epochs over up to {cost.training_rows} rows")
    if cost.search_answers:
        parts.append(f"up to {cost.search_answers} answers while GEPA searches")
    if cost.prompts:
        parts.append(f"up to {cost.prompts} prompts on up to {cost.rows_per_prompt} rows each")
    if cost.validation_answers:
        parts.append(f"then {cost.validation_answers} answers to judge {'the best' if cost.prompts else 'it'}")
    if cost.test_answers:
        parts.append(f"{cost.test_answers} answers on the test rows")
    calls = [f"up to about {cost.llm_calls} calls to the external LLM"] if cost.llm_calls else []
    judged = ["calls to the judging LLM for every answer"] if cost.judged else []
    return ", and ".join([", ".join(parts) or "nothing", *calls, *judged])


def interval(result: SplitResult) -> str:
    """A test reward with its 95 % interval."""
    return f"{number(result.reward)} [{number(result.low)}, {number(result.high)}]"


def beside_one_answer(outcome: Outcome) -> str:
    """That one answer to every test row earns as much, or nearly; empty where it does not, or was not measured."""
    most, test = outcome.one_answer, outcome.best_test
    if most is None or most < test.low:
        return ""
    if test.reward <= most:
        return "One answer to all test rows would earn as much."
    return f"One answer to all test rows would earn {number(most)}, which is within this result's interval."


def always(outcome: Outcome) -> str:
    """What one answer to every row earns, as a sentence; empty in older runs, which did not measure it."""
    constant, most = outcome.commonest, outcome.one_answer
    if constant is None:
        return ""
    if constant.reward is None or most is None:
        return "What one answer to every row would earn is left out: a judge or a reward model scores this task."
    text = f'Always answering "{cut(printable(constant.answer), ANSWER)}" would earn {number(constant.reward)}'
    if most > constant.reward:
        text += f"; another single answer, {number(most)}"
    if most < outcome.best_test.low:
        return f"{text}."
    if outcome.best_test.reward <= most:
        return f"{text}. The best pair does no better than that."
    return f"{text}. That is within the best pair's interval."


def same_answer(found: SameAnswer) -> str:
    """That a pair says one thing, whatever it is asked."""
    said = f'"{cut(printable(found.answer), ANSWER)}"' if found.answer else "nothing"
    return f"It answers {said} to {found.rows} of {plural(found.answered, 'validation row')}."


def cost(spend: Spend) -> str:
    """What a step or a run used up, in a line; zeros are left out."""
    parts = [
        duration(spend.seconds),
        f"{short(spend.forward_tokens)} forward tokens" if spend.forward_tokens else "",
        f"{plural(spend.train_tokens, 'token')} trained" if spend.train_tokens else "",
        f"{plural(spend.generated_tokens, 'token')} generated" if spend.generated_tokens else "",
        f"{plural(spend.llm_tokens, 'LLM token')}" if spend.llm_tokens else "",
        money(spend.usd) if spend.usd else "",
    ]
    return ", ".join(part for part in parts if part)


def forward_tokens(spend: Spend) -> str:
    """The cost that levers are compared by, short: 850, 2k, 1.2M; a dash where nothing was counted."""
    return short(spend.forward_tokens) if spend.forward_tokens else "–"


def outlook(outlook: Outlook) -> str:
    """What a lever promises: `+0.21 ± 0.08 for 2k forward tokens`, in merit, and the drift that it may cost."""
    drift = f", drift {signed(outlook.drift)}" if outlook.drift else ""
    return f"{signed(outlook.gain)} ± {number(outlook.spread)} for {short(outlook.cost)} forward tokens{drift}"


def forgotten(verdict: Verdict) -> str:
    """What new weights have lost elsewhere: `drift +0.00 → +0.21`, and kept tasks; empty if that was not measured."""
    parts = []
    if verdict.drift is not None:
        before = NOT_KNOWN if verdict.drift_before is None else signed(verdict.drift_before)
        parts.append(f"drift {before} → {signed(verdict.drift)} nats a token")
    return "; ".join([*parts, *([kept_scores(verdict.keep)] if verdict.keep else [])])


def kept_scores(scores: Sequence[KeptScore]) -> str:
    """Of each task that is to be kept, the base's reward and that of the weights."""
    return "; ".join(f"{score.task}: {number(score.base)} → {number(score.reward)}" for score in scores)


def tokens(spend: Spend) -> str:
    """All tokens of a step together: trained on, generated, and the external LLM's."""
    return f"{spend.train_tokens + spend.generated_tokens + spend.llm_tokens:,}"


def remade(remaking: Remaking) -> str:
    """How many hard questions were rewritten, how many answers to those passed, and what that did to their reward."""
    if not remaking.asked:
        return "no hard question to rewrite"
    if not remaking.tried:
        return f"{plural(remaking.asked, 'hard question')}, none rewritten"
    share = percent(remaking.kept / remaking.asked)
    memory = f"; {remaking.recalled} recalled from memory" if remaking.recalled else ""
    return (
        f"{plural(remaking.asked, 'hard question')}, {remaking.tried} rewritten, {plural(remaking.kept, 'answer')} "
        f"passed (yield {share}{memory}), reward on those rewritten {number(remaking.before)} → "
        f"{number(remaking.after)}"
    )


def asked(usage: Mapping[Role, Usage]) -> str:
    """What the external LLM was asked in each role, in a line."""
    roles = []
    for role, used in usage.items():
        cached = f" and {used.cached} from cache" if used.cached else ""
        roles.append(f"{role} {plural(used.calls, 'call')}{cached}, {money(used.usd)}")
    return "; ".join(roles)


def cut(text: str, most: int) -> str:
    """At most so many characters of a text."""
    return text if len(text) <= most else f"{text[:most].rstrip()} …"


def bar(value: float, width: int = 10) -> str:
    """A reward in [0, 1] as a text bar of `width` characters."""
    filled = round(min(max(value, 0.0), 1.0) * width) if math.isfinite(value) else 0
    return "█" * filled + "░" * (width - filled)


def sparkline(values: list[float]) -> str:
    """Rewards in [0, 1] as one block character each; a space where there is no number."""
    top = len(BLOCKS) - 1
    return "".join(BLOCKS[round(min(max(v, 0.0), 1.0) * top)] if math.isfinite(v) else " " for v in values)


def printable(text: str) -> str:
    """One line without control characters: text of a model must not be able to steer a terminal."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


SAYINGS: tuple[Callable[..., str], ...] = (
    always, bar, beside_one_answer, cost, cut, duration, evidence, figure, forgotten, forward_tokens, interval, kept,
    kept_scores, lever, mark, money, number, outlook, p_value, percent, plural, raced, remade, same_answer, signed,
    sparkline, tokens,
)  # fmt: skip
