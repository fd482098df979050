"""The tables of a benchmark: words and numbers in rows, for whichever face shows them."""

from math import exp
from typing import NamedTuple

from agent.config.policies import OBSERVING
from bench.decisions.comparison import Chance, Estimate, Standing
from bench.decisions.suite import ORACLE
from ui import wording

CHARGED = (
    "Cost is counted in forward passes of a token (3 × trained + generated + read). A run that never reached the "
    "target is charged the most that any policy spent on the same task and seed; the oracle's search is not counted."
)
HINDSIGHT = (
    "The best fixed order is chosen in hindsight, by the test rows it is then compared on: it has the advantage. "
    "Intervals are of the paired difference, by a bootstrap over seeds and test rows."
)


class Grid(NamedTuple):
    """A table with a title and a sentence below it."""

    title: str
    note: str
    head: list[str]
    rows: list[list[str]]


def overview(standing: Standing) -> list[Grid]:
    """What fits a terminal: means of each task, and what they come to."""
    tasks, regrets = standing.tasks, any(standing.rows(ORACLE))
    head = ["policy", *tasks, "all", *(["regret"] if regrets else []), "reached", "share of cost"]
    rows = []
    for policy in standing.policies:
        means = [_mean(standing.reward(policy, task)) for task in tasks]
        regret = [_mean(standing.regret(policy))] if regrets else []
        reached, _ = _cost(standing, policy)
        cost = standing.cost(policy)
        share = _mean(cost.share if cost else None)
        rows.append([policy, *means, _estimate(standing.reward(policy)), *regret, reached, share])
    note = (
        "Joint reward on sealed test rows, means over seeds. Share of cost: passes to the target, of what a run that "
        "never reached it is charged (the most that any policy spent on the same task and seed)."
    )
    return [Grid("How the policies stand", note, head, rows), *([_duels(standing)] if _pairs(standing) else [])]


def grids(standing: Standing) -> list[Grid]:
    """Everything there is to say, in the order of a reader's interest."""
    found = [_summary(standing), _rewards(standing), _costs(standing)]
    found += [_duels(standing)] if _pairs(standing) else []
    matches = _matches(standing)
    return [*found, *([matches] if matches.rows else []), _runs(standing)]


def _summary(standing: Standing) -> Grid:
    head = ["policy", "runs", "test reward", "regret", "reached the target", "share of cost", "passes", "min",
            "rounds", "kept edits", "kept LoRA"]  # fmt: skip
    rows = []
    for policy in standing.policies:
        found = list(standing.rows(policy).values())
        amounts = [[row.spend.seconds / 60, row.rounds, row.kept_edits, row.kept_lora] for row in found]
        passes = sum(row.spend.forward_tokens for row in found) / len(found)
        means = [f"{sum(column) / len(found):.1f}" for column in zip(*amounts, strict=True)]
        reward, regret = _estimate(standing.reward(policy)), _estimate(standing.regret(policy))
        rows.append([policy, str(len(found)), reward, regret, *_cost(standing, policy), f"{passes:,.0f}", *means])
    note = (
        "Means over tasks and seeds, each run alike; intervals by a bootstrap over seeds and test rows of these tasks. "
        "Regret is the oracle's test reward less the policy's, over the same tasks and seeds; the oracle chooses by "
        "validation rows, so it can be below 0. Share of cost: passes to the target as a share of what a run that "
        "never reached it is charged, its interval by a bootstrap over runs. Minutes are those the steps took when "
        "they were first computed."
    )
    return Grid("All tasks", note, head, rows)


def _rewards(standing: Standing) -> Grid:
    rows = [
        [policy, *(_estimate(standing.reward(policy, task)) for task in standing.tasks)] for policy in standing.policies
    ]
    note = (
        "Mean joint reward over seeds, with the 95 % interval of a bootstrap over seeds and test rows; Wilson's, of "
        "the test rows, where each is all right or all wrong in every seed."
    )
    return Grid("Test reward of each task", note, ["policy", *standing.tasks], rows)


def _costs(standing: Standing) -> Grid:
    def cell(policy: str, task: str) -> str:
        cost = standing.cost(policy, task)
        return f"{cost.passes:,.0f} ({cost.reached}/{cost.share.groups})" if cost else "–"

    rows = [[policy, *(cell(policy, task) for task in standing.tasks)] for policy in standing.policies]
    note = f"Mean passes over seeds; in brackets how many seeds reached the target. {CHARGED}"
    return Grid("Cost to the target", note, ["policy", *standing.tasks], rows)


def _pairs(standing: Standing) -> list[tuple[str, str]]:
    subjects = [policy for policy in OBSERVING if policy in standing.policies]
    others = [policy for policy in standing.policies if policy != ORACLE]
    return [(policy, other) for policy in subjects for other in others if policy != other]


def _duels(standing: Standing) -> Grid:
    duels = [duel for pair in _pairs(standing) if (duel := standing.duel(*pair))]
    head = ["first against second", "pairs", "reward", "p", "p by task", "cheaper", "p", "p by task"]
    rows = [
        [f"{duel.policy} against {duel.other}", str(duel.reward.units), wording.signed(duel.reward.mean),
         _p(duel.reward), _p(duel.task_reward), f"× {exp(duel.cost.mean):.2f}", _p(duel.cost), _p(duel.task_cost)]
        for duel in duels
    ]  # fmt: skip
    note = (
        "Over pairs of the same task and seed: mean difference of test reward, and how many times cheaper to the "
        "target (geometric mean; above 1: the first is cheaper). p: one-sided sign-flip test that the first is better, "
        "uncorrected for how many are made; by task: the same with the seeds of a task averaged first, tasks as units."
    )
    return Grid("Pair by pair", note, head, rows)


def _matches(standing: Standing) -> Grid:
    pairs = [(policy, task) for policy in OBSERVING if policy in standing.policies for task in standing.tasks]
    found = [match for pair in pairs if (match := standing.match(*pair))]
    rows = [
        [match.policy, match.task, match.best, _signed(match.difference), "yes" if match.holds else "no"]
        for match in found
    ]
    head = ["policy", "task", "best fixed order", "difference of test reward", "not shown to be worse"]
    return Grid("Against the best fixed order of each task", HINDSIGHT, head, rows)


def _runs(standing: Standing) -> Grid:
    rows = [
        [row.task, str(row.seed), row.policy, wording.number(row.best.reward), row.levers or "–",
         f"{row.reached.passes:,}" if row.reached else "never", f"{row.spend.forward_tokens:,}",
         wording.duration(row.spend.seconds), row.stopped]
        for policy in standing.policies
        for row in standing.rows(policy).values()
    ]  # fmt: skip
    rows.sort(key=lambda row: (standing.tasks.index(row[0]), int(row[1])))
    note = "p: prompt edit, w: LoRA; ✓ kept, ✗ taken back. The oracle's cost is that of its last run alone."
    head = ["task", "seed", "policy", "test reward", "levers", "target at", "passes", "time", "why it stopped"]
    return Grid("Every run", note, head, rows)


def _cost(standing: Standing, policy: str) -> list[str]:
    rows, cost = standing.rows(policy).values(), standing.cost(policy)
    reached = sum(row.reached is not None for row in rows)
    return [f"{reached}/{len(rows)}", _estimate(cost.share) if cost else "–"]


def _mean(estimate: Estimate | None) -> str:
    return _number(estimate.mean) if estimate else "–"


def _estimate(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    return f"{_number(estimate.mean)} [{_number(estimate.low)}, {_number(estimate.high)}]"


def _signed(estimate: Estimate) -> str:
    return f"{wording.signed(estimate.mean)} [{wording.signed(estimate.low)}, {wording.signed(estimate.high)}]"


def _number(value: float) -> str:
    """To two places; what is nearly nothing is nothing here, where columns are compared."""
    return f"{round(value, 2) + 0:.2f}".replace("-", "−")


def _p(chance: Chance) -> str:
    return wording.p_value(chance.p_value)
