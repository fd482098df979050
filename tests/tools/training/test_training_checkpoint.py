"""A training that is cut off goes on after its last checkpoint, and comes to what it would have come to."""

import errno
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from agent.config.lora import Lora
from agent.errors import StepFailed
from agent.records.actions import TrainLora
from agent.records.examples import Example, Prompt
from agent.records.rounds import Spend
from agent.records.training import Training, TrainingJob
from tools.model.backbone import Backbone
from tools.training import checkpoint, optimizer_steps
from tools.training.gradient import compute_gradient
from tools.training.lora import LoraTrainer

Load = Callable[..., Backbone]
ALWAYS = 1e-9  # seconds between checkpoints: one after each step
ROWS = [
    (Prompt(system=text), Example(name=f"t:{n}", question=f"Who rules {n}?", answer="ANSWER: " * (n % 3 + 1)))
    for n in range(3)
    for text in ("Answer.", "Be short.")
]
ACTION = TrainLora(epochs=2, rank=4, learning_rate=1e-2, replay=0.4, enough=0)  # 8 steps, over two rows or one
SETTINGS = Lora(rank=4, batch_size=2, weight_decay=0.1, dropout=0.1, checkpoint_seconds=ALWAYS)


class CutOff(BaseException):
    """In the place of a kill: nothing is done about it."""


class Trained:
    """Trainings of one adapter in one folder, each by a model of its own, as processes one after another have it."""

    def __init__(self, load: Load, folder: Path) -> None:
        self.folder, self.load = folder, load
        self.charged, self.notes, self.shown = list[int](), list[str](), list[tuple[int, int, str]]()

    def train(self, cut_at: int = 0, settings: Lora = SETTINGS, **changes: Any) -> Training:
        """Cut off as soon as the step of this number is shown; 0: to its end."""

        def progress(what: str, done: int, total: int, note: str = "") -> None:
            self.shown.append((done, total, note))
            if done == cut_at and "goes on" not in note:
                raise CutOff

        def charge(spend: Spend) -> None:
            if spend.train_tokens:  # not of general rows, which are read
                self.charged.append(spend.train_tokens)

        ours = self.load(charge=charge)
        how: dict[str, Any] = {"rows": ROWS, "action": ACTION, "parent": None, "seed": 3}
        job = TrainingJob(adapter="made", folder=self.folder / "made", **how | changes)
        return LoraTrainer(ours, settings, progress, note=self.notes.append).train(job)

    def cut_off(self, at: int, **how: Any) -> None:
        with pytest.raises(CutOff):
            self.train(at, **how)

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return load_file(self.folder / "made" / "adapter_model.safetensors")

    @property
    def file(self) -> Path:
        return self.folder / "made.training"

    def is_as(self, other: "Trained") -> bool:
        """Whether both made the same adapter, bit for bit, and nothing else is left."""
        mine, theirs = self.weights, other.weights
        same = mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
        return same and [path.name for path in self.folder.iterdir()] == ["made"]


@pytest.fixture
def trained(backbone: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Trained]:
    monkeypatch.setattr(optimizer_steps, "DEVICES", ())

    def make(name: str) -> Trained:
        (tmp_path / name).mkdir()
        return Trained(backbone, tmp_path / name)

    return make


Make = Callable[[str], Trained]
Whole = tuple[Trained, Training]


@pytest.fixture(scope="module")
def once() -> dict[str, Whole]:
    return {}


@pytest.fixture
def whole(once: dict[str, Whole], backbone: Load, trained: Make, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The training that nobody disturbs, and its record: one for all tests of this file."""
    if not once:
        made = Trained(backbone, tmp_path_factory.mktemp("whole"))
        once["whole"] = made, made.train()
    return once["whole"]


@pytest.mark.parametrize("devices", [(), ("cpu", "cuda")], ids=["AdamW", "FlatAdamW"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])  # gpt2 drops out in its base, too
def test_it_ends_as_if_nothing_had_been(
    name: str, devices: tuple[str, ...], trained: Make, backbone: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizer_steps, "DEVICES", devices)
    whole, ours = trained("whole"), trained("cut")
    whole.load = ours.load = lambda **how: backbone(name, **how)
    log = whole.train()
    assert len(log.steps) == 8
    for at in (1, 4, 7):  # at 1 there is no checkpoint yet
        ours.cut_off(at)
    went_on = ours.train()
    assert ours.is_as(whole)
    assert (went_on.steps, went_on.tokens, went_on.stopped) == (log.steps, log.tokens, None)
    resumed = [done for done, total, note in ours.shown if note == f"goes on after step {done} of {total}"]
    assert resumed == [3, 6]
    assert ours.notes == [f"The training that was cut off goes on after step {done} of 8." for done in resumed]


def test_what_is_paid_is_what_was_done(whole: Whole, trained: Make) -> None:
    """The steps of a checkpoint are not paid again, those after it are; and a limit is of what the run has left."""
    _, log = whole
    ours, told = trained("cut"), trained("told")
    for each in (ours, told):
        each.cut_off(4)
    first, paid = ours.charged[:4], sum(ours.charged)
    ours.train(token_limit=1, charged=paid)
    assert len(ours.charged) == 5 and ours.charged[4] == first[3], "one step, which is done and paid again"
    ours.cut_off(4)
    limit = log.tokens - sum(ours.charged[-4:]) - 1
    went_on = ours.train(token_limit=limit, charged=sum(ours.charged[-4:]))
    assert went_on.stopped and len(went_on.steps) < 8, "the step that is done twice counts twice"
    assert went_on.steps == log.steps[: len(went_on.steps)]
    assert told.train(token_limit=sum(first) + 1).steps == log.steps[:5], "and of the whole training where nothing was"


def test_the_second_try_at_half_the_rate_goes_on_as_such(trained: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def third_is_none(steps: list[int]) -> Callable[..., float]:
        def compute(*step: Any) -> float:
            loss = compute_gradient(*step)
            steps.append(1)
            return math.nan if len(steps) == 3 else loss

        return compute

    whole, ours = trained("whole"), trained("cut")
    monkeypatch.setattr(optimizer_steps, "compute_gradient", third_is_none([]))
    log = whole.train()
    monkeypatch.setattr(optimizer_steps, "compute_gradient", third_is_none([]))
    ours.cut_off(5)
    monkeypatch.setattr(optimizer_steps, "compute_gradient", compute_gradient)
    went_on = ours.train()
    assert ours.is_as(whole) and "at step 3, at rate 0.01, so it was begun again" in log.retried
    told = [(each.retried, each.learning_rate, each.steps, each.tokens) for each in (went_on, log)]
    assert told[0] == told[1]
    assert sum(ours.charged) == log.tokens + ours.charged[7], "three steps and five, of which one is done again"


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)


def cut_in_half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def test_a_damaged_one_is_told_of_and_removed_and_the_training_begins_again(whole: Whole, trained: Make) -> None:
    ours = trained("cut")
    for damage in (flip_a_bit, cut_in_half, empty):
        ours.cut_off(3)
        damage(ours.file)
        ours.cut_off(1)
        assert not ours.file.exists()
    ours.train()
    assert ours.is_as(whole[0])
    assert len(ours.notes) == 3
    assert all("begins again, and its checkpoint is removed (made.training is damaged: " in told for told in ours.notes)


@pytest.mark.parametrize(
    "other",
    [{"seed": 4}, {"rows": ROWS[1:]}, {"action": ACTION.model_copy(update={"epochs": 1})},
     {"settings": SETTINGS.model_copy(update={"weight_decay": 0.0})}],
    ids=["seed", "rows", "action", "settings"],
)  # fmt: skip
def test_one_of_another_training_is_not_gone_on_from(other: dict[str, Any], trained: Make) -> None:
    ours = trained("cut")
    ours.cut_off(2)
    ours.cut_off(1, **other)
    assert not ours.file.exists()
    [told] = ours.notes
    assert "made.training is of other rows, settings, processes or another device" in told


def test_how_often_they_are_written_changes_no_training_and_at_0_there_are_none(whole: Whole, trained: Make) -> None:
    ours = trained("cut")
    ours.cut_off(4)
    assert ours.file.exists()
    rarer = SETTINGS.model_copy(update={"checkpoint_seconds": 3600})
    ours.train(settings=rarer)
    assert "goes on after step 3 of 8" in ours.notes[0] and ours.is_as(whole[0])
    for seconds in (0, 3600):
        never = trained(f"never-{seconds}")
        never.cut_off(2, settings=SETTINGS.model_copy(update={"checkpoint_seconds": seconds}))
        assert not list(never.folder.iterdir())


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOSPC, "The disk is full"), (errno.EIO, "No checkpoint can be written")]
)
def test_a_checkpoint_that_cannot_be_written_ends_no_training_and_leaves_the_one_before(
    number: int, said: str, whole: Whole, trained: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = trained("cut")
    ours.cut_off(4)
    before, tries = ours.file.read_bytes(), []

    def full(tensors: object, file: Path, about: object) -> None:
        tries.append(file)
        file.write_bytes(b"half of it")
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        ours.cut_off(7)
    assert ours.file.read_bytes() == before and len(tries) == 1 and not tries[0].exists()
    [note] = ours.notes[1:]
    assert note.startswith(said) and note.endswith(": the training goes on without new checkpoints.")
    ours.train()
    assert ours.is_as(whole[0])


def test_none_is_left_of_a_training_that_has_failed(trained: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = trained("cut")
    ours.cut_off(4)
    monkeypatch.setattr(optimizer_steps, "compute_gradient", lambda *_: math.nan)
    with pytest.raises(StepFailed, match=r"at step 4, at rate 0\.01; .* at step 1, at rate 0\.005"):
        ours.train()
    assert not list(ours.folder.iterdir())


def test_it_holds_tensors_and_text_and_nothing_that_is_run(trained: Make) -> None:
    ours = trained("cut")
    ours.cut_off(4)
    with safe_open(ours.file, "pt") as file:
        assert {"job", "reached", "digest"} == set(file.metadata())
        kinds = {name.split(".")[0] for name in file.keys()}  # noqa: SIM118  not a dict
    assert kinds == {"weight", "exp_avg", "exp_avg_sq", "step", "random"}
