"""Files of a run that something has damaged: made again or one back, and said; the run then ends as it would have."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.errors import BadInput
from agent.records.events import Note
from agent.records.rounds import Call, Usage
from graphs.approval import APPROVE
from graphs.context import new_run
from graphs.session import open_session
from memory.experience import ExperienceFile
from memory.run.folder import RunFolder
from tests.faults.zygote import Zygote
from tests.fixtures.learnable import LEARNABLE, TinyTask
from tools.llm.budget import LlmBudget

# Nothing is ever right, and everything is kept: the best pair has an adapter and an edited prompt after two rounds.
TASK = LEARNABLE | {"content": [{"kind": "exact", "extract": "never"}], "without": ["gate"]}
SETTINGS = ["policy=w -> p -> w", "seed=1", "budget.rounds=3", "lora.epochs=3"]
NOISE = b"\x00\xff{not json"
Damage = Callable[[RunFolder], object]


def outline(run: RunFolder) -> list[object]:
    rounds = [(row.number, row.decision.move, row.trial.candidate, row.verdict, row.best) for row in run.rounds()]
    outcome = run.outcome()
    return [*rounds, outcome and (outcome.best, outcome.best_test, outcome.baseline_test)]


def notes(run: RunFolder) -> str:
    return "\n".join(note.text for note in run.events().of(Note))


@pytest.fixture(scope="module")
def made() -> Iterator[list[RunFolder]]:
    """The run that waits, and the one that nothing happened to; made once."""
    yield []


@pytest.fixture
def run(
    made: list[RunFolder],
    tiny_task: TinyTask,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    processes: Zygote,
) -> RunFolder:
    """A run with two rounds, a training and an edit, that waits with the question about its third."""
    if not made:
        home = tmp_path_factory.mktemp("made")
        first = new_run(shutil.copytree(tiny_task(**TASK), home / "task"), SETTINGS, home / "runs")
        with open_session(first, supervised=True) as session:
            session.go()
            session.go(APPROVE)
            session.go(APPROVE)
        made += [first, copy(first, home / "whole")]
        assert not processes.play(made[1].path).error
    return copy(made[0], tmp_path / "damaged")


def copy(run: RunFolder, root: Path) -> RunFolder:
    """The run with what stands beside it."""
    shutil.copytree(run.path.parent, root)
    return RunFolder.open(root / run.name)


def garble(file: Path) -> None:
    file.write_bytes(NOISE)


def tear(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-20] ^= 4
    file.write_bytes(data)


def garble_line(file: Path, number: int) -> None:
    lines = file.read_bytes().split(b"\n")
    lines[number] = NOISE
    file.write_bytes(b"\n".join(lines))


def best_adapter(run: RunFolder) -> Path:
    adapter = run.rounds()[-1].best.adapter
    assert adapter
    return run.adapter_folder(adapter)


def best_prompt(run: RunFolder) -> Path:
    return run.path / "prompts" / f"{run.rounds()[-1].best.prompt}.json"


def lose_the_last_round(run: RunFolder) -> None:
    garble_line(run.path / "ledger.jsonl", 2)
    events = (run.path / "events.jsonl").read_bytes().split(b"\n")
    kept = [line for line in events if b'"kind": "verdict"' not in line or b'"number": 1,' in line]
    (run.path / "events.jsonl").write_bytes(b"\n".join(kept))


def damage_what_can_be_made_again(run: RunFolder) -> None:
    garble(best_prompt(run))
    for file in ("rows.json", "drifts.json", "general.json", "charge.json"):
        garble(run.path / file)
    for file in (run.path / "remembered").iterdir():
        garble(file)
    for file in (run.path / "evaluations").iterdir():
        tear(file)
    garble_line(run.path.parent / "experience.jsonl", 0)
    garble_line(run.path / "ledger.jsonl", 1)


MADE_AGAIN = (
    "The file rows.json was damaged", "The file drifts.json was damaged", "The file general.json was damaged",
    "What steps that were cut off have used up is not known", "what it held is measured again",
    "and written again from what could be read", "Restored from the run's events: round 1",
    "is restored from prompts.jsonl",
)  # fmt: skip


def lose_an_adapter_and_a_prompt(run: RunFolder) -> None:
    shutil.rmtree(best_adapter(run))
    best_prompt(run).unlink()
    garble_line(run.path / "ledger.jsonl", 2)


DAMAGES: dict[str, tuple[Damage, tuple[str, ...]]] = {
    "many at once": (damage_what_can_be_made_again, MADE_AGAIN),
    "the last line of the ledger and its event": (lose_the_last_round, ("The run goes on after round 1",)),
    "half an adapter": (
        lambda run: tear(best_adapter(run) / "adapter_model.safetensors"), ("was damaged", "is restored: ")),
    "a bit of an adapter": (
        lambda run: flip_a_bit(best_adapter(run) / "adapter_model.safetensors"), ("was damaged", "is restored: ")),
    "an adapter's settings": (
        lambda run: garble(best_adapter(run) / "adapter_config.json"), ("was damaged", "is restored: ")),
    "what is gone": (lose_an_adapter_and_a_prompt, ("is restored: ", "from prompts.jsonl", "events: round 2")),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGES)
def test_damage_is_mended_and_said_and_the_run_ends_as_it_would_have(
    what: str, run: RunFolder, made: list[RunFolder], processes: Zygote
) -> None:
    damage, said = DAMAGES[what]
    damage(run)
    played = processes.play(run.path)
    assert not played.error, played.error
    assert [sentence for sentence in said if sentence not in notes(run)] == []
    assert outline(run) == outline(made[1])
    outcome, undisturbed = run.outcome(), made[1].outcome()
    assert outcome and undisturbed and outcome.spend.forward_tokens >= undisturbed.spend.forward_tokens
    assert len(ExperienceFile.beside(run.path.parent).read()) == 3


def test_a_line_of_the_ledger_that_nothing_restores_is_refused_by_its_number(run: RunFolder) -> None:
    garble_line(run.path / "ledger.jsonl", 1)
    (run.path / "events.jsonl").unlink()
    before = (run.path / "ledger.jsonl").read_bytes()
    with pytest.raises(BadInput, match=r"ledger\.jsonl, line 2: .*put the file back from a copy"), open_session(run):
        pass
    assert (run.path / "ledger.jsonl").read_bytes() == before


def test_who_only_reads_a_run_moves_nothing(run: RunFolder) -> None:
    best = run.rounds()[-1].best
    for file in (run.path / "evaluations").iterdir():
        tear(file)
    garble_line(run.path / "ledger.jsonl", 1)
    garble(run.path / "prompts" / f"{best.prompt}.json")
    before = sorted(run.path.rglob("*"))
    reader = RunFolder.open(run.path)
    assert reader.prompt(best.prompt).id == best.prompt
    with pytest.raises(BadInput, match=r"evaluations/.* cannot be read"):
        reader.load(best, "validation")
    with pytest.raises(BadInput, match="line 2"):
        reader.rounds()
    assert sorted(run.path.rglob("*")) == before


def test_events_that_are_damaged_are_left_out_and_counted(run: RunFolder, processes: Zygote) -> None:
    garble_line(run.path / "events.jsonl", 1)
    assert run.events().left_out == 1
    assert not processes.play(run.path).error
    assert run.outcome() is not None and run.events().left_out == 1


def test_a_damaged_line_of_the_llms_log_is_charged_at_the_most_that_a_call_has_cost(run: RunFolder) -> None:
    for number, usd in enumerate((0.01, 0.03, 0.02), 1):
        usage = Usage(calls=1, input_tokens=100 * number, usd=usd)
        run.log(Call(number=number, role="judge", model="m", usage=usage, settled=True))
    garble_line(run.path / "calls.jsonl", 0)
    said: list[str] = []
    run.mend(said.append)
    assert "charged at the most" in said[0]
    assert LlmBudget(run).spend.usd == pytest.approx(0.03 + 0.02 + 0.03)
    run.mend(pytest.fail)


def test_what_a_policy_had_learned_from_is_taken_again(run: RunFolder) -> None:
    lines = ExperienceFile.beside(run.path.parent).read()
    said: list[str] = []
    run.mend(said.append)
    assert run.learned_from(lambda: lines) == tuple(lines) != ()
    garble(run.path / "experience.json")
    assert run.learned_from(lambda: lines[:1]) == tuple(lines[:1]) and "experience.json" in said[0]
