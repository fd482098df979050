"""The tables of a benchmark: words and numbers in rows, for the terminal, table.md and decide.html."""

from collections.abc import Callable, Sequence
from math import exp
from typing import NamedTuple

from agent.config.policies import OBSERVING
from bench.decisions.comparison import Alike, Comparison, Estimate, MeanTest
from bench.decisions.results import ORACLE
from ui import wording

CHARGED = (
    "Cost is counted in forward tokens (3 × trained + generated + read). A run that never reached the target is "
    "charged the most that any policy spent on the same task and seed; the oracle's search is not counted."
)
COMMONEST = "commonest answer"  # heads the row of what it earns
ALIKE = (
    "Commonest answer: the train answer that earns most on the train rows, given to every test row; in brackets the "
    "most that a single train answer could earn there. Left out where a judge or a reward model scores."
)
HINDSIGHT = (
    "The best fixed order is chosen in hindsight, by the test rows it is then compared on: it has the advantage. "
    "Intervals are of the paired difference, by a bootstrap over seeds and test rows."
)


class Table(NamedTuple):
    """A table with its title and a note."""

    title: str
    note: str
    head: list[str]
    rows: list[list[str]]


def overview(comparison: Comparison) -> list[Table]:
    """The tables that fit a terminal: means of each task and over all."""
    tasks, regrets = comparison.tasks, any(comparison.rows(ORACLE))
    head = ["policy", *tasks, "all", *(["regret"] if regrets else []), "reached", "share of cost", "drift"]
    rows = []
    for policy in comparison.policies:
        means = [_mean(comparison.reward(policy, task)) for task in tasks]
        regret = [_mean(comparison.regret(policy))] if regrets else []
        reached, _ = _cost(comparison, policy)
        cost = comparison.cost(policy)
        share = _mean(cost.share if cost else None)
        costs = [reached, share, _mean(comparison.drift(policy))]
        rows.append([policy, *means, _estimate(comparison.reward(policy)), *regret, *costs])
    rows.insert(0, _alike(comparison, [*tasks, None], len(head)))
    note = (
        "Joint reward on sealed test rows, means over seeds. Share of cost: forward tokens to the target, as a share "
        "of what a run that never reached it is charged (the most that any policy spent on the same task and seed). "
        f"Drift: nats per token that the final weights have lost on general text. {ALIKE}"
    )
    return [Table("How the policies compare", note, head, rows), *_head_to_heads(comparison)]


def all_tables(comparison: Comparison) -> list[Table]:
    """All tables, the most important first."""
    return [
        _summary(comparison), _rewards(comparison), _costs(comparison), *_head_to_heads(comparison),
        *_best_fixed(comparison), _runs(comparison),
    ]  # fmt: skip


def _summary(comparison: Comparison) -> Table:
    head = ["policy", "runs", "test reward", "regret", "reached the target", "share of cost", "forward tokens", "min",
            "rounds", "kept edits", "kept LoRA", "drift"]  # fmt: skip
    rows = []
    for policy in comparison.policies:
        found = list(comparison.rows(policy).values())
        amounts = [[row.spend.seconds / 60, row.rounds, row.kept_edits, row.kept_lora] for row in found]
        spent = sum(row.spend.forward_tokens for row in found) / len(found)
        means = [f"{sum(column) / len(found):.1f}" for column in zip(*amounts, strict=True)]
        reward, regret = _estimate(comparison.reward(policy)), _estimate(comparison.regret(policy))
        rows.append([policy, str(len(found)), reward, regret, *_cost(comparison, policy), f"{spent:,.0f}", *means,
                     _estimate(comparison.drift(policy), wording.signed)])  # fmt: skip
    note = (
        "Means over tasks and seeds, each run alike; intervals by a bootstrap over seeds and test rows of these tasks. "
        "Regret is the oracle's test reward less the policy's, over the same tasks and seeds; the oracle chooses by "
        "validation rows, so it can be below 0. Share of cost: forward tokens to the target as a share of what a run "
        "that never reached it is charged, its interval by a bootstrap over runs. Minutes are those the steps took "
        "when they were first computed. Drift: nats per token that the final weights have lost on general text, 0 if "
        "bare; its interval by a bootstrap over runs."
    )
    return Table("All tasks", note, head, rows)


def _rewards(comparison: Comparison) -> Table:
    rows = [
        [policy, *(_estimate(comparison.reward(policy, task)) for task in comparison.tasks)]
        for policy in comparison.policies
    ]
    rows.insert(0, _alike(comparison, comparison.tasks, len(comparison.tasks) + 1))
    note = (
        "Mean joint reward over seeds, with the 95 % interval of a bootstrap over seeds and test rows; Wilson's, of "
        f"the test rows, where each is all right or all wrong in every seed. {ALIKE}"
    )
    return Table("Test reward of each task", note, ["policy", *comparison.tasks], rows)


def _costs(comparison: Comparison) -> Table:
    def cell(policy: str, task: str) -> str:
        cost = comparison.cost(policy, task)
        return f"{cost.forward_tokens:,.0f} ({cost.reached}/{cost.share.groups})" if cost else "–"

    rows = [[policy, *(cell(policy, task) for task in comparison.tasks)] for policy in comparison.policies]
    note = f"Mean forward tokens over seeds; in brackets how many seeds reached the target. {CHARGED}"
    return Table("Cost to the target", note, ["policy", *comparison.tasks], rows)


def _head_to_heads(comparison: Comparison) -> list[Table]:
    """The policies that observe, each against all others; no table where there are no such pairs."""
    subjects = [policy for policy in OBSERVING if policy in comparison.policies]
    others = [policy for policy in comparison.policies if policy != ORACLE]
    pairs = [(policy, other) for policy in subjects for other in others if policy != other]
    head = ["first against second", "pairs", "reward", "p", "p by task", "cheaper", "p", "p by task"]
    rows = [
        [f"{found.policy} against {found.other}", str(found.reward.units), wording.signed(found.reward.mean),
         _p(found.reward), _p(found.task_reward), f"× {exp(found.cost.mean):.2f}", _p(found.cost), _p(found.task_cost)]
        for pair in pairs
        if (found := comparison.head_to_head(*pair))
    ]  # fmt: skip
    note = (
        "Over pairs of the same task and seed: mean difference of test reward, and how many times cheaper to the "
        "target (geometric mean; above 1: the first is cheaper). p: one-sided sign-flip test that the first is better, "
        "not corrected for the number of tests; by task: the same with the seeds of a task averaged first, tasks as "
        "units."
    )
    return [Table("Pair by pair", note, head, rows)] if pairs else []


def _best_fixed(comparison: Comparison) -> list[Table]:
    pairs = [(policy, task) for policy in OBSERVING if policy in comparison.policies for task in comparison.tasks]
    rows = [
        [
            found.policy,
            found.task,
            found.best,
            _estimate(found.difference, wording.signed),
            "yes" if found.holds else "no",
        ]
        for pair in pairs
        if (found := comparison.against_best_fixed(*pair))
    ]
    head = ["policy", "task", "best fixed order", "difference of test reward", "not shown to be worse"]
    return [Table("Against the best fixed order of each task", HINDSIGHT, head, rows)] if rows else []


def _runs(comparison: Comparison) -> Table:
    rows = [
        [row.task, str(row.seed), row.policy, wording.number(row.best.reward), row.levers or "–",
         f"{row.reached.passes:,}" if row.reached else "never", f"{row.spend.forward_tokens:,}",
         wording.duration(row.spend.seconds), row.stopped]
        for policy in comparison.policies
        for row in comparison.rows(policy).values()
    ]  # fmt: skip
    rows.sort(key=lambda row: (comparison.tasks.index(row[0]), int(row[1])))
    note = "p: prompt edit, w: LoRA; ✓ kept, ✗ taken back. The oracle's cost is that of its last run alone."
    head = ["task", "seed", "policy", "test reward", "levers", "target at", "forward tokens", "time", "why it stopped"]
    return Table("Every run", note, head, rows)


def _alike(comparison: Comparison, tasks: Sequence[str | None], width: int) -> list[str]:
    """The row of the commonest answer: what it earns on each of the tasks (None: on all), then dashes."""
    earned = [alike(comparison.alike(task)) for task in tasks]
    return [COMMONEST, *earned, *["–"] * (width - 1 - len(earned))]


def alike(found: Alike | None) -> str:
    """What one answer to all rows earns; in brackets the most that one could, where that is more."""
    if found is None:
        return "–"
    return _number(found.commonest) + (f" ({_number(found.most)})" if found.most > found.commonest else "")


def _cost(comparison: Comparison, policy: str) -> list[str]:
    rows, cost = comparison.rows(policy).values(), comparison.cost(policy)
    reached = sum(row.reached is not None for row in rows)
    return [f"{reached}/{len(rows)}", _estimate(cost.share) if cost else "–"]


def _mean(estimate: Estimate | None) -> str:
    return _number(estimate.mean) if estimate else "–"


def _estimate(estimate: Estimate | None, number: Callable[[float], str] | None = None) -> str:
    """The mean with its interval, each written by `number`."""
    if estimate is None:
        return "–"
    mean, low, high = map(number or _number, estimate[:3])
    return f"{mean} [{low}, {high}]"


def _number(value: float) -> str:
    """To two places; a value that rounds to 0 is shown as 0, since columns are compared."""
    return f"{round(value, 2) + 0:.2f}".replace("-", "−")


def _p(chance: MeanTest) -> str:
    return wording.p_value(chance.p_value)
