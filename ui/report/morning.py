"""What is read first of a run: what was kept, by its gain; what went wrong, and what was done about it; dead ends."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple

from agent.records.actions import Rollback
from agent.records.events import LimitsSet, Note, RunFinished, RunStarted, RunStopped
from agent.records.rounds import Round, standing_rounds
from graphs.cancelling import CANCELLED
from graphs.control.extension import in_words
from memory.run.events import TimedEvent
from memory.run.folder import RunFolder
from ui.report.sections import RoundSection

WARNING = "Warning: "  # what a note begins with
KILLED = "A process ended without a word (killed, out of memory, or by a second signal)."
MOST = 20  # troubles, and dead ends, that are shown


class Trouble(NamedTuple):
    """Something that went wrong. `when` is a round or a time; `then` may be empty."""

    when: str
    what: str
    then: str


def kept_by_gain(sections: Sequence[RoundSection], rounds: Sequence[Round]) -> list[RoundSection]:
    """Of these sections, those whose round was kept and not undone, the largest gain in reward first, then in merit."""
    standing = standing_rounds(rounds)[-1]
    kept = (section for section in sections if section.row.number in standing)
    return sorted(kept, key=lambda section: (-section.row.verdict.gain, -section.row.verdict.merit_gain))


def dead_ends(rounds: Sequence[Round]) -> list[Round]:
    """The rounds whose trial was taken back, or was undone later, the latest first. Steps that failed are troubles."""
    standing = standing_rounds(rounds)[-1]
    return [row for row in reversed(rounds) if row.trial.candidate is not None and not _stands(row, standing)][:MOST]


def _stands(row: Round, standing: Collection[int]) -> bool:
    """Whether the round is part of the present pair, or a way back that was kept."""
    return row.number in standing or (row.verdict.kept and isinstance(row.decision.move, Rollback))


def troubles(run: RunFolder, rounds: Sequence[Round]) -> list[Trouble]:
    """What went wrong: warnings, steps that brought nothing, a planner that was not used, processes that ended early.
    The latest, if there are many."""
    events = run.events()
    warned = dict.fromkeys(note.text for note in events.of(Note) if note.text.startswith(WARNING))  # each once
    warnings = [Trouble("", text.removeprefix(WARNING), "") for text in warned]
    found = [trouble for row in rounds for trouble in _of_round(row)]
    return [*warnings, *found, *_of_processes(events.entries)][-MOST:]


def remarks(run: RunFolder) -> list[str]:
    """What else the run remarked: what it passed over, waited for, did otherwise than planned, and its changed limits.
    Each once; the latest, if there are many."""
    found: list[str] = []
    for entry in run.events().entries:
        match entry.event:
            case Note(text=text) if not text.startswith(WARNING):
                found.append(text)
            case LimitsSet(row=row):
                by = f" by the {row.by}" if row.by else ""
                found.append(f"Limits set{by} at {_clock(entry.time)}: {in_words(row.limits)}.")
            case _:
                pass
    return list(dict.fromkeys(found))[-MOST:]


def _of_round(row: Round) -> list[Trouble]:
    when, found = f"round {row.number}", []
    if row.trial.cancelled:
        by_user = row.trial.note == CANCELLED
        what = "The action was cancelled by a user." if by_user else row.trial.note
        found.append(Trouble(when, what, "Nothing was changed."))
    elif row.trial.candidate is None and row.decision.move.action in ("train_lora", "edit_prompt"):
        found.append(Trouble(when, row.trial.note, "The pair before it stood."))
    if row.decision.planner_fault:
        found.append(Trouble(when, f"The planner was not used: {row.decision.planner_fault}", "The rules decided."))
    return found


def _of_processes(entries: Sequence[TimedEvent]) -> list[Trouble]:
    """Processes that an error stopped, or that ended without a word."""
    found: list[Trouble] = []
    works = False
    for place, entry in enumerate(entries):
        match entry.event:
            case RunStarted():
                if works:  # its last event tells when, as far as anything does; other limits may be by another process
                    last = next(other for other in reversed(entries[:place]) if not isinstance(other.event, LimitsSet))
                    when = f"after {_clock(last.time)}"
                    found.append(Trouble(when, KILLED, _on(entry)))
                works = True
            case RunStopped(reason=reason, failed=failed):
                works = False
                if failed:
                    again = next((later for later in entries[place:] if isinstance(later.event, RunStarted)), None)
                    then = _on(again) if again else "It waits to be resumed."
                    found.append(Trouble(_clock(entry.time), reason, then))
            case RunFinished():
                works = False
            case _:
                pass
    return found


def _on(entry: TimedEvent) -> str:
    return f"It went on at {_clock(entry.time)}, after its last completed step."


def _clock(time: str) -> str:
    return f"{datetime.fromisoformat(time).astimezone():%H:%M}"
