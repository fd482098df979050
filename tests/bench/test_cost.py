"""The benchmark measures what it says: equal work for all contenders, nothing lost on a kill, nothing hidden."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from agent.errors import BadInput
from bench.cost import document
from bench.cost.claims import Claim, claims
from bench.cost.laps import Worker, laps, run
from bench.cost.machine import Machine
from bench.cost.measuring import measure
from bench.cost.plan import Plan, full
from bench.cost.records import (
    AnswerCell,
    Answered,
    Cell,
    Floor,
    LeftOut,
    Line,
    Measurement,
    ModelSpec,
    Trained,
    TrainingCell,
    read,
)
from bench.cost.results import by_cell
from bench.overheads.long_run import TRAINED, long_run
from bench.overheads.many_prompts import filled
from bench.studies.critiques import critiques
from memory.prompts import PromptMemory

STEP = TrainingCell(prefix=80, batch=8, steps=2)
ANSWERS = AnswerCell(prefix=256)


@pytest.fixture
def spec(tiny_model: Callable[[str], Path]) -> ModelSpec:
    return ModelSpec(model=str(tiny_model("llama")), device="cpu")


# --- contenders ---


@pytest.mark.parametrize("prefix", [0, 80])
@pytest.mark.parametrize("peer", ["plain", "trl"])
def test_contenders_at_training_do_the_same_work(spec: ModelSpec, peer: str, prefix: int) -> None:
    if importlib.util.find_spec(peer) is None and peer == "trl":
        pytest.skip("TRL is not installed: pip install -e '.[bench]'")
    cell = TrainingCell(prefix=prefix, batch=4, steps=3)
    ours, theirs = measure("ours", cell, spec), measure(peer, cell, spec)
    assert isinstance(ours, Trained) and isinstance(theirs, Trained)
    assert len(ours.seconds) == len(theirs.seconds) == 2
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-4)
    assert (ours.tokens, ours.prefix) == (theirs.tokens, theirs.prefix)
    assert min(ours.memory, theirs.memory) > 0


@pytest.mark.parametrize("peer", ["generate", "generate_sorted", "pipeline"])
@pytest.mark.parametrize("adapter", [False, True])
def test_contenders_at_answering_say_the_same(spec: ModelSpec, peer: str, adapter: bool) -> None:
    cell = AnswerCell(prefix=80, rows=5, new=6, adapter=adapter, batch_size=2)
    ours, theirs = measure("ours", cell, spec), measure(peer, cell, spec)
    assert isinstance(ours, Answered) and isinstance(theirs, Answered)
    assert ours.texts == theirs.texts and any(ours.texts)
    assert ours.seconds > 0 and max(ours.generated) <= 6


def test_the_adapter_changes_what_is_said(spec: ModelSpec) -> None:
    plain, tuned = (
        measure("generate", AnswerCell(prefix=80, rows=5, new=6, adapter=adapter), spec) for adapter in (False, True)
    )
    assert isinstance(plain, Answered) and isinstance(tuned, Answered)
    assert plain.texts != tuned.texts


@pytest.mark.parametrize(("wanted", "least", "most"), [(0, 0, 0), (80, 40, 120), (256, 200, 310)])
def test_the_prefix_is_about_as_long_as_wanted(spec: ModelSpec, wanted: int, least: int, most: int) -> None:
    trained = measure("ours", TrainingCell(prefix=wanted, batch=8, steps=2), spec)
    assert isinstance(trained, Trained)
    assert least <= trained.prefix <= most


def test_the_floor_knows_that_a_shared_prefix_runs_once(spec: ModelSpec) -> None:
    one, two = (measure("floor", TrainingCell(prefix=256, batch=batch, steps=2), spec) for batch in (4, 8))
    assert isinstance(one, Floor) and isinstance(two, Floor)
    assert one.flops < two.flops < 1.8 * one.flops
    assert min(one.shaped, one.square, one.bandwidth, one.least_seconds()) > 0


def test_the_floor_of_answers_grows_with_what_is_said(spec: ModelSpec) -> None:
    floor = measure("floor", AnswerCell(prefix=80, rows=4), spec)
    assert isinstance(floor, Floor)
    assert 0 < floor.least_seconds() < floor.least_seconds((5, 5)) < floor.least_seconds((9, 11))


def test_reading_the_prompt_gives_the_first_token() -> None:
    floor = FLOOR.model_copy(update={"rows": 2, "step_flops": 1e11, "step_shaped": 1e11})
    assert floor.least_seconds((1, 1)) == floor.least_seconds() == floor.least_seconds((0, 0))
    assert floor.least_seconds((4, 2)) == pytest.approx(floor.least_seconds() + 2)


def test_a_worker_measures_in_a_process_of_its_own(spec: ModelSpec) -> None:
    worker = Worker("ours", spec)
    outcomes = [worker.measure(TrainingCell(prefix=0, batch=batch, steps=2)) for batch in (1, 2)]
    worker.close()
    assert all(isinstance(outcome, Trained) for outcome in outcomes)


# --- laps ---


def took(seconds: float) -> Trained:
    return Trained(seconds=(seconds,), loss=1.0, tokens=800, prefix=78, memory=1 << 30)


def test_a_killed_benchmark_goes_on_where_it_was(tmp_path: Path) -> None:
    file, asked = tmp_path / "lines.jsonl", []

    def measured(contender: str, cell: Cell) -> Measurement:
        asked.append(contender)
        return took(1.0)

    plan = Plan((STEP,), laps=2)
    first = laps(plan, measured, file)
    next(first), next(first)
    first.close()
    file.write_text(file.read_text()[:-20])  # the kill tore the second line
    rest = list(laps(plan, measured, file))
    assert len(read(file)) == len(rest) + 1
    assert asked[:3] == ["ours", "plain", "plain"]
    by_lap = [[line.contender for line in read(file) if line.lap == lap] for lap in range(2)]
    assert by_lap[0] == by_lap[1]


def test_what_would_take_too_long_is_left_out_and_said(tmp_path: Path) -> None:
    large = STEP.model_copy(update={"batch": 64})

    def measured(contender: str, cell: Cell) -> Measurement:
        assert cell == STEP or contender in ("ours", "floor")
        return took(1.0 if contender == "ours" else 10.0)

    lines = list(laps(Plan((STEP, large), laps=1), measured, tmp_path / "lines.jsonl"))
    left = {line.contender: line.outcome for line in lines if line.cell == large}
    assert left["plain"] == LeftOut(why="about 80 s") and isinstance(left["ours"], Trained)


def test_the_plan_covers_what_is_wanted() -> None:
    cells = full("cpu").cells
    there = {(cell.prefix, cell.batch) for cell in cells if isinstance(cell, TrainingCell)}
    assert there == {(prefix, batch) for prefix in (0, 80, 256, 1024) for batch in (1, 8, 64)}
    assert {cell.prefix for cell in cells if isinstance(cell, AnswerCell)} == {80, 256, 1024}


def test_numbers_of_other_code_are_not_mixed_in(tmp_path: Path, spec: ModelSpec) -> None:
    run(Plan(()), spec, tmp_path, MACHINE, print)
    run(Plan(()), spec, tmp_path, MACHINE.model_copy(update={"date": "later"}), print)
    with pytest.raises(BadInput, match="abc1234"):
        run(Plan(()), spec, tmp_path, MACHINE.model_copy(update={"commit": "other"}), print)


def test_a_prompt_memory_is_filled_wholly_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = iter(range(2))

    def embed(texts: Sequence[str]) -> list[list[float]]:
        if next(batches, None) is None:
            raise KeyboardInterrupt
        return [[1.0, 0.0] for _ in texts]

    monkeypatch.setattr("bench.overheads.many_prompts._embed", embed)
    with pytest.raises(KeyboardInterrupt):
        filled(tmp_path, 250)
    batches = iter(range(3))
    folder = filled(tmp_path, 250)
    assert filled(tmp_path, 250) == folder  # no text is left to embed
    with PromptMemory.open(folder, embed) as memory:
        assert memory.count() == 250


def test_the_long_run_goes_through_all_its_rounds(tmp_path: Path) -> None:
    folder, costs = long_run(tmp_path / "long", 4)
    outcome = folder.outcome()
    assert [cost.number for cost in costs] == [1, 2, 3, 4]
    assert all(cost.parts["checkpoint"] > 0 and cost.parts["ledger"] > 0 for cost in costs)
    assert outcome and outcome.spend.train_tokens == 2 * TRAINED, "what another trainer says it used up is charged"


# --- the page ---


MACHINE = Machine(
    date="2026-11-22 10:00", command="python -m bench.cost", commit="abc1234", processor="A processor", cores=2,
    memory=1 << 34, device="CPU", dtype="float32", model="smollm2-135m", versions={"torch": "2.13.0"},
)  # fmt: skip
FLOOR = Floor(flops=6e10, shaped=1e11, square=1.2e11, bandwidth=1e10)


def lines(trl: float, generate: float, text: str = "yes", floor: Floor = FLOOR) -> list[Line]:
    def said(seconds: float, text: str) -> Answered:
        return Answered(seconds=seconds, texts=(text,) * 64, generated=(2,) * 64, prefix=250, memory=1 << 30)

    decoding = FLOOR.model_copy(update={"rows": 32, "step_flops": 1e9, "step_shaped": 1e11, "step_bytes": 1e8})
    outcomes: list[tuple[Cell, str, Measurement]] = [
        (STEP, "ours", took(1.0)), (STEP, "plain", took(3.0)), (STEP, "trl", took(trl)), (STEP, "floor", floor),
        (ANSWERS, "ours", said(2.0, "yes")), (ANSWERS, "generate", said(generate, text)), (ANSWERS, "floor", decoding),
        (ANSWERS, "pipeline", LeftOut(why="about 120 s")),
    ]  # fmt: skip
    return [Line(cell=c, contender=who, lap=lap, outcome=what) for lap in range(2) for c, who, what in outcomes]


def held(trl: float, generate: float, text: str = "yes", floor: Floor = FLOOR) -> dict[str, bool | None]:
    words = ("TRL", "grows", "never slower", "floor", "loss", "answers", "demo", "rewards")

    def about(claim: Claim) -> str:
        return next(word for word in words if word in claim.wanted)

    return {about(claim): claim.held for claim in claims(by_cell(lines(trl, generate, text, floor)))}


def test_claims_say_what_held_and_what_did_not() -> None:
    assert held(5.1, 8.1) == {
        "TRL": True, "grows": None, "never slower": None, "floor": False, "loss": True, "answers": True,
        "demo": None, "rewards": None,
    }  # fmt: skip
    better = FLOOR.model_copy(update={"square": FLOOR.shaped})
    assert held(5.1, 8.1, floor=better)["floor"] is True
    assert held(4.9, 8.1)["TRL"] is False
    assert held(5.1, 7.9)["answers"] is False
    assert held(5.1, 8.1, text="no")["answers"] is False


def test_laps_are_compared_with_themselves() -> None:
    outcomes: list[tuple[str, int, Measurement]] = [
        ("ours", 0, LeftOut(why="out of memory")), ("trl", 0, took(4.0)), ("ours", 1, took(1.0)), ("trl", 1, took(2.0)),
    ]  # fmt: skip
    [cell] = by_cell([Line(cell=STEP, contender=who, lap=lap, outcome=what) for who, lap, what in outcomes])
    assert str(cell.of("trl").speedup) == "2.00 × [2.00, 2.00]"


def written(root: Path, lines: list[Line]) -> Path:
    """benchmarks.md over these lines, its plots beside it."""
    folder = root / "cpu"
    run(Plan(()), ModelSpec(model="none", device="cpu"), folder, MACHINE, print)
    (folder / "lines.jsonl").write_text("".join(f"{line.model_dump_json()}\n" for line in lines))
    return document.write([folder], root / "docs")


def test_a_contender_without_points_is_not_drawn(tmp_path: Path) -> None:
    written(tmp_path, [line for line in lines(4.9, 8.1) if line.contender != "trl"])
    text = (tmp_path / "docs" / "benchmarks" / "training-cpu.svg").read_text()
    assert "ours" in text and "TRL" not in text


def test_the_page_shows_every_number_and_every_gap(tmp_path: Path) -> None:
    page = written(tmp_path, lines(4.9, 8.1)).read_text()
    shown = ["abc1234", "A processor", "| 78 | 8 | 8 rows/s, 800 tok/s |", "**not held**", "– (about 120 s)", "1.00000"]
    shown += ["4.90 × [4.90, 4.90]; the plain loop's: 3.00 × [3.00, 3.00]", "4.05 × [4.05, 4.05], 64 of 64 the same"]
    shown += ["60% at the step's shapes, 50% at the best square"]
    assert [text for text in shown if text not in page] == []
    widths = {line.count("|") for line in page.split("### Training")[1].split("\n\n")[1].splitlines()}
    assert len(widths) == 1
    plots = list((tmp_path / "docs" / "benchmarks").glob("*.svg"))
    assert len(plots) == 2 and all(f"benchmarks/{plot.name}" in page for plot in plots)


def test_critiques_at_once_are_compared_with_the_librarys_own_way() -> None:
    ours, theirs = critiques(count=2, width=2)
    assert ours.value > 0.5 and theirs.value > 2  # calls of 0.5 s; the library makes two for each
