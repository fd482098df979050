"""NeSyLoRA: tune the weights or rewrite the prompt, round after round, decided by signal. The front door.

Importing this loads nothing heavy; `adapt` does the main job, `main` is the console script `nesylora`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from agent.protocols import Listener
    from agent.records import Prompt
    from agent.rounds import Outcome

__all__ = ["Adapted", "adapt", "main"]


class Adapted(NamedTuple):
    """What a run brought. `adapter` is a peft folder, or None where the bare base with `prompt` was best."""

    run: Path
    prompt: Prompt
    adapter: Path | None
    outcome: Outcome


def adapt(
    task: str | Path,
    *,
    overrides: Sequence[str] = (),
    runs: str | Path = "runs",
    name: str | None = None,
    listener: Listener | None = None,
) -> Adapted:
    """Adapt a model to a task, from the seed prompt to the sealed test, and write the report.

    Args:
        task: a task.yaml, or a folder that holds one.
        overrides: settings of the task as `a.b=c`.
        runs: where run folders and the prompt memory live.
        name: of the run's folder; by default the task's name and the time.
        listener: told of progress and events.

    Raises:
        agent.errors.NesyLoraError: with a message that says what is wrong, where, and the way out.
    """
    from graphs.context import new_run
    from graphs.session import open_session
    from ui.report import write_report

    folder = new_run(Path(task), overrides, Path(runs), name)
    with open_session(folder, listener=listener, report=write_report) as session:
        session.go()
    outcome = folder.outcome()
    assert outcome is not None, "an unsupervised run ends with an outcome"
    best = outcome.best
    adapter = folder.adapter_folder(best.adapter) if best.adapter else None
    return Adapted(folder.path, folder.prompt(best.prompt), adapter, outcome)


def main() -> None:
    """The console script."""
    from ui.cli import run

    raise SystemExit(run())


if __name__ == "__main__":
    main()
