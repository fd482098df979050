"""`nesylora compare`: the rules beside the fixed orders, on the same rows, seeds and budget."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from agent.records import digest
from agent.rounds import Round
from eval.suite import Result, run_all, table
from graphs.context import new_run
from graphs.session import open_session
from memory.ledger import RunFolder
from ui.live import LiveView
from ui.report import write_report


def compare(task: Path, policies: Sequence[str], seeds: Sequence[int], overrides: Sequence[str], runs: Path) -> int:
    """Run what has not been run yet, and print the table. No run sees what another one remembered."""
    from eval.tasks import load_task

    read = load_task(task, overrides)
    settings = read.config.model_dump(mode="json", exclude={"policy", "seed"})
    folder = runs / f"compare-{read.config.name}-{digest([read.digest, settings])[:6]}"
    folder.mkdir(parents=True, exist_ok=True)

    def adapt(policy: str, seed: int) -> Result:
        name = f"{policy.replace(' -> ', '').replace(' ', '')}-seed{seed}"
        run = _opened(task, [*overrides, f"policy={policy}", f"seed={seed}", "recall.prompts=0"], folder, name)
        with LiveView() as view, open_session(run, listener=view, report=write_report) as session:
            session.go()
        return _result(run, policy, seed)

    results = list(run_all(policies, seeds, adapt, folder / "results.jsonl"))
    with LiveView() as view:
        head, *rows = table(results)
        title = f"{read.config.name}, sealed test rows, seeds {', '.join(map(str, seeds))}; edits and LoRA: rounds kept"
        shown = Table(*head, title=title)
        shown.columns[0].no_wrap = True
        for row in rows:
            shown.add_row(*row)
        view.console.print(shown)
        view.console.print(f"Rows: {folder / 'results.jsonl'}")
    return 0


def _opened(task: Path, overrides: Sequence[str], folder: Path, name: str) -> RunFolder:
    """The run of this name: one that was interrupted goes on."""
    path = folder / name
    return RunFolder.open(path) if (path / "run.json").is_file() else new_run(task, overrides, folder, name)


def _result(run: RunFolder, policy: str, seed: int) -> Result:
    outcome, rounds = run.outcome(), run.rounds()
    assert outcome is not None, "an unsupervised run ends with an outcome"
    return Result(
        task=run.about.task, policy=policy, seed=seed, run=run.name, rounds=len(rounds),
        kept_edits=_kept(rounds, "edit_prompt"), kept_lora=_kept(rounds, "train_lora"),
        seconds=outcome.spend.seconds, train_tokens=outcome.spend.train_tokens,
        baseline=outcome.baseline_test, best=outcome.best_test, stopped=outcome.stopped,
    )  # fmt: skip


def _kept(rounds: Sequence[Round], action: str) -> int:
    return sum(row.verdict.kept and row.decision.move.action == action for row in rounds)
