"""Contenders in turn, A B A B, every line on disk before the next: a run that was killed goes on."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

from pydantic import ValidationError

from agent.errors import BadInput
from bench.cost.plan import FLOOR, Plan, contenders
from bench.cost.records import Answered, Cell, LeftOut, Line, Machine, Outcome, Place, Trained, TrainingCell
from bench.cost.worker import Worker

Measure = Callable[[str, Cell], Outcome]


def run(plan: Plan, place: Place, folder: Path, machine: Machine, say: Callable[[str], None]) -> None:
    """Measure what the folder does not hold yet. Raises BadInput where it holds numbers of other code or machines."""
    _claim(folder, machine)
    workers: dict[str, Worker] = {}

    def measure(contender: str, cell: Cell) -> Outcome:
        say(f"… {sentence(cell)}, {contender}")
        if contender not in workers:
            workers[contender] = Worker(contender, place)
        return workers[contender].measure(cell)

    try:
        for line in laps(plan, measure, folder / "lines.jsonl"):
            say(f"{sentence(line.cell)}, {line.contender}, lap {line.lap}: {_brief(line.outcome)}")
    finally:
        for worker in workers.values():
            worker.close()


def laps(plan: Plan, measure: Measure, file: Path) -> Iterator[Line]:
    """Every contender of every cell in every lap; what stands in `file` is not measured again, nor yielded."""
    lines = read(file)
    done = {(line.cell, line.contender, line.lap) for line in lines}
    for cell in plan.cells:
        for lap in range(plan.laps):
            for contender in contenders(cell):
                if (cell, contender, lap) in done:
                    continue
                why = None if contender == FLOOR else too_long(lines, contender, cell, plan)
                outcome = LeftOut(why=why) if why else measure(contender, cell)
                lines.append(Line(cell=cell, contender=contender, lap=lap, outcome=outcome))
                _append(file, lines[-1])
                yield lines[-1]


def read(file: Path) -> list[Line]:
    """The lines so far; one that was cut off by a kill is passed over."""
    return list(_whole(file.read_text().splitlines())) if file.exists() else []


def too_long(lines: Sequence[Line], contender: str, cell: Cell, plan: Plan) -> str | None:
    """Why the cell is left out, judged by this contender's largest cell so far of the same kind; else None."""
    known = [line for line in lines if line.contender == contender and line.cell.kind == cell.kind]
    measured = [(line.cell.work, took(line.outcome)) for line in known if not isinstance(line.outcome, LeftOut)]
    if not measured:
        return None
    work, seconds = max(measured)
    most = plan.most_seconds_step if isinstance(cell, TrainingCell) else plan.most_seconds_answers
    predicted = seconds * cell.work / work
    return f"about {predicted:.0f} s" if predicted > most else None


def took(outcome: Outcome) -> float:
    """Seconds of the median step, or of all answers."""
    if isinstance(outcome, Trained):
        return median(outcome.seconds)
    assert isinstance(outcome, Answered)
    return outcome.seconds


def sentence(cell: Cell) -> str:
    """The cell in words."""
    if isinstance(cell, TrainingCell):
        return f"training, prefix {cell.prefix}, batch {cell.batch}"
    adapter = " with an adapter" if cell.adapter else ""
    return f"{cell.rows} answers of at most {cell.new} tokens, prefix {cell.prefix}{adapter}"


def _brief(outcome: Outcome) -> str:
    if isinstance(outcome, LeftOut):
        return f"left out ({outcome.why})"
    if isinstance(outcome, Trained | Answered):
        return f"{took(outcome):.3g} s"
    return f"{outcome.least_seconds():.3g} s at {outcome.shaped / 1e9:.0f} GFLOP/s"


def _claim(folder: Path, machine: Machine) -> None:
    file = folder / "machine.json"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(machine.model_dump_json(indent=1))
        return
    before = Machine.model_validate_json(file.read_text())
    same = {"date": before.date, "command": before.command}
    if before != machine.model_copy(update=same):
        raise BadInput(
            f"{folder} holds measurements of commit {before.commit} on {before.processor}, not of what runs now; "
            f"give another folder with --into, or remove this one"
        )


def _append(file: Path, line: Line) -> None:
    torn = file.exists() and file.read_bytes()[-1:] not in (b"", b"\n")
    with file.open("a") as lines:
        lines.write("\n" * torn + line.model_dump_json() + "\n")


def _whole(texts: Sequence[str]) -> Iterator[Line]:
    for text in texts:
        try:
            yield Line.model_validate_json(text)
        except ValidationError:
            continue
