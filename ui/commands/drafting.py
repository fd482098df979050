"""The dialogue of `nesylora init`: what is proposed, what the user would have otherwise, and what is written."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agent.errors import BadInput
from eval.drafts.answers import PLAUSIBLE
from eval.drafts.records import DraftOptions, TaskDraft
from ui.terminal.live import LiveView

Ask = Callable[[str], str]
SETTLED = ("columns", "splits", "system", "content", "style", "target", "budget")
YES, NO = ("", "y", "yes", "ok"), ("n", "no", "c", "change")
CUT = 160  # characters of a text that is shown


def init(rows: Path, into: Path | None, options: DraftOptions, ask: Ask | None, tries: bool) -> int:
    """Propose a task, let it be changed, show what the seed prompt does, and write it.

    Args:
        into: the task's folder; by default one of the task's name, here.
        ask: puts a question to the user; None: the proposal is taken as it is.
        tries: whether five rows are tried with the model.
    """
    from graphs.drafting import TRIED, draft_task, try_rows

    with LiveView() as view:
        draft = draft_task(rows, options)
        folder = into or Path(draft.name)
        if (folder / "task.yaml").exists():
            raise BadInput(f"{folder / 'task.yaml'} exists already; name another folder: --into FOLDER")
        show(draft, view.console)
        while ask and (changed := _changes(draft, options, ask)) != options:
            options = changed
            draft = draft_task(rows, options)
            show(draft, view.console)
        if tries:
            draft = try_rows(draft, TRIED, view)
            _show_tried(draft, view.console)
        if ask and not _agreed(f"Write it to {folder}/? [Y/n] ", ask):
            view.console.print("Nothing was written.")
            return 0
        written = draft.write(folder)
        view.console.print(f"Written: {written}, with comments on what may be changed.", markup=False)
        view.console.print(f"Next: nesylora run {folder}", markup=False)
    return 0


def at_terminal(question: str) -> str:
    """What the user types."""
    return input(question)


def is_terminal() -> bool:
    """Whether somebody is there to be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def show(draft: TaskDraft, console: Console) -> None:
    """The proposal as a table, with the reasons."""
    table = Table.grid(padding=(0, 2))
    counts = ", ".join(f"{split} {count}" for split, count in draft.counts.items())
    proposed = {
        "columns": ", ".join(f"{role}: {column}" for role, column in draft.columns.items()),
        "splits": counts,
        "system": draft.system or "–",
        "content": _scorers(draft.content),
        "style": _scorers(draft.style) or "–",
        "target": f"{draft.target:g}",
        "budget": f"{draft.rounds} rounds, {draft.minutes:g} minutes",
    }
    for key in SETTLED:
        table.add_row(f"[bold]{key}[/]", f"{escape(proposed[key])}\n[dim]{escape(draft.why[key])}[/]")
    console.print(f"{draft.name}: {draft.found} rows of {draft.source} ({draft.format})\n", markup=False)
    console.print(table)
    if draft.unused:
        console.print(f"Not used: {', '.join(draft.unused)}", markup=False)
    for warning in draft.warnings:
        console.print(f"[yellow]Note:[/] {escape(warning)}")


def _scorers(scorers: tuple[dict[str, object], ...]) -> str:
    return "; ".join(
        " ".join([str(scorer["kind"]), *(f"{key}={value!r}" for key, value in scorer.items() if key != "kind")])
        for scorer in scorers
    )


def _show_tried(draft: TaskDraft, console: Console) -> None:
    table = Table("train row", "wanted", "the model, with the seed prompt", "reward", title="As it is now")
    for row in draft.tried:
        cells = (row.question, row.wanted, row.output or "–")
        shown = [escape(cell if len(cell) <= CUT else f"{cell[:CUT]}…") for cell in cells]
        table.add_row(*shown, f"{row.content * row.style:.2f}")
    console.print(table)


def _agreed(question: str, ask: Ask) -> bool:
    """Yes or no; asked again after anything else, which is neither."""
    while (answer := ask(question).strip().casefold()) not in (*YES, *NO):
        print(f"'{answer}' is neither yes nor no.")
    return answer in YES


def _changes(draft: TaskDraft, options: DraftOptions, ask: Ask) -> DraftOptions:
    """What the user would have otherwise; the same options where all is well."""
    if _agreed("Is that right? [Y/n to change it] ", ask):
        return options
    values = options.model_dump()
    for key, question, now in _questions(draft):
        while answer := ask(f"{question} [{now}] ").strip():
            try:
                values[key] = _checked(key, answer, draft)
            except BadInput as error:
                print(error)
                continue
            break
    return DraftOptions.model_validate(values)


def _questions(draft: TaskDraft) -> list[tuple[str, str, str]]:
    columns = [
        (role, f"Column of the {role}?", column)
        for role, column in draft.columns.items()
        if role in DraftOptions.model_fields and role != "system"
    ]
    return [
        *columns,
        ("content", "How is content scored?", str(draft.content[0]["kind"])),
        ("system", "What should the model be told first?", draft.system),
        ("target", "Which reward is enough?", f"{draft.target:g}"),
        ("rounds", "How many rounds at most?", str(draft.rounds)),
    ]


def _checked(key: str, answer: str, draft: TaskDraft) -> object:
    known = (*draft.columns.values(), *draft.unused)
    if key in draft.columns and key != "system" and answer not in known:
        raise BadInput(f"There is no column '{answer}'. There are {', '.join(known)}.")
    if key == "content" and answer not in PLAUSIBLE:
        raise BadInput(f"'{answer}' cannot be drafted. There are {', '.join(PLAUSIBLE)}.")
    field = DraftOptions.model_fields[key]
    if float in get_args(field.annotation) or int in get_args(field.annotation):
        try:
            value = float(answer)
            return getattr(DraftOptions.model_validate({key: int(value) if value.is_integer() else value}), key)
        except (ValidationError, ValueError):
            raise BadInput(f"'{answer}' is no fitting number.") from None
    return answer
