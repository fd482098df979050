"""The study's page: test rewards, costs, and where the rules are not best."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from agent.policy.learned import short
from bench.backbones.cells import CELLS, MEANING, RULES
from bench.decisions.comparison import Comparison, Estimate
from bench.decisions.folder import Manifest
from bench.decisions.results import Result
from bench.decisions.tables import ALIKE, COMMONEST, alike
from ui import wording
from ui.report.markdown import escape

Compared = Mapping[str, Comparison]  # by backbone
REWARDS = (
    "Mean joint reward on sealed test rows, with the 95 % interval of a bootstrap over seeds and test rows (Wilson's "
    "where every row is all right or all wrong); bold: the highest of the row. "
) + ALIKE
COSTS = (
    "Forward tokens, minutes of the steps when they were first computed, and drift: nats per token that the final "
    "weights lost on general text. Means over seeds."
)
BEHIND = (
    "Paired difference of test reward, the rules less the best, with its interval. The best is chosen on the test rows "
    "themselves, which is to its advantage."
)


def page(studies: Mapping[str, tuple[Manifest, list[Result]]]) -> str:
    """The page of a study in Markdown; a backbone's benchmark by the backbone's name."""
    compared = {name: Comparison(results) for name, (_, results) in studies.items()}
    cells = [cell for cell in CELLS if any(cell in comparison.policies for comparison in compared.values())]
    parts = ["# Backbones and tasks", *_about([manifest for manifest, _ in studies.values()])]
    parts += ["\n".join(f"- {cell}: {MEANING[cell]}" for cell in cells)]
    head = ["backbone", "task"]
    parts += ["## Test reward", REWARDS, _table([*head, COMMONEST, *cells], _rewards(compared, cells))]
    parts += ["## Cost, time and drift", COSTS, _table([*head, *cells], _costs(compared, cells))]
    if behind := _behind(compared):
        columns = [*head, "best", "difference", "levers", "why the rules stopped"]
        parts += ["## Where the rules are not best", BEHIND, _table(columns, behind)]
    return "\n\n".join(parts) + "\n"


def _about(manifests: Sequence[Manifest]) -> list[str]:
    last, seconds = manifests[-1], sum(manifest.seconds for manifest in manifests)
    versions = ", ".join(f"{name} {version}" for name, version in last.versions.items())
    machine = (
        f"{last.processor}, {wording.plural(last.cores, 'core')}, {wording.plural(last.jobs, 'job')} at a time, "
        f"{wording.plural(last.threads, 'thread')} each; {wording.duration(seconds)} in all. {versions}."
    )
    return [f"Command: `{last.command}`", machine]


def _rewards(compared: Compared, cells: Sequence[str]) -> list[list[str]]:
    rows = []
    for name, comparison in compared.items():
        for task in [*comparison.tasks, None]:
            estimates = [comparison.reward(cell, task) if cell in comparison.policies else None for cell in cells]
            best = max((_rounded(estimate) for estimate in estimates if estimate), default=0.0)
            shown = [_estimate(estimate, best=best) for estimate in estimates]
            rows.append([name, task or "mean of all", alike(comparison.alike(task)), *shown])
    return rows


def _costs(compared: Compared, cells: Sequence[str]) -> list[list[str]]:
    return [
        [name, task or "mean of all", *(_cost(comparison, cell, task) for cell in cells)]
        for name, comparison in compared.items()
        for task in [*comparison.tasks, None]
    ]


def _cost(comparison: Comparison, cell: str, task: str | None) -> str:
    rows = list(comparison.rows(cell, task).values()) if cell in comparison.policies else []
    if not rows:
        return "–"
    tokens = short(fmean(row.spend.forward_tokens for row in rows))
    minutes = fmean(row.spend.seconds for row in rows) / 60
    drift = comparison.drift(cell, task)
    return f"{tokens}, {minutes:.1f} min, {wording.signed(drift.mean) if drift else '–'}"


def _behind(compared: Compared) -> list[list[str]]:
    """Of each backbone and task on which another cell has a higher mean than the rules."""
    rows = []
    for name, comparison in compared.items():
        for task in comparison.tasks if RULES in comparison.policies else []:
            found = {cell: estimate for cell in comparison.policies if (estimate := comparison.reward(cell, task))}
            best = max(found, key=lambda cell: _rounded(found[cell]))
            own = list(comparison.rows(RULES, task).values())
            difference = comparison.difference(RULES, best, task)
            if own and difference and _rounded(found[best]) > _rounded(found[RULES]):
                levers = "; ".join(dict.fromkeys(row.levers or "–" for row in own))
                stopped = "; ".join(dict.fromkeys(row.stopped for row in own))
                rows.append([name, task, best, _estimate(difference, wording.signed), levers, escape(stopped)])
    return rows


def _rounded(estimate: Estimate) -> float:
    return round(estimate.mean, 9)  # sums in another order make no difference


def _estimate(
    estimate: Estimate | None, number: Callable[[float], str] = wording.number, best: float | None = None
) -> str:
    """The mean with its interval; bold where it is the best."""
    if estimate is None:
        return "–"
    mean, low, high = map(number, estimate[:3])
    return f"{f'**{mean}**' if _rounded(estimate) == best else mean} [{low}, {high}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])
