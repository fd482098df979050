"""Several processes train what one would: the same losses, norms and weights, and a clear end where one dies."""

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file
from torch import distributed
from transformers import AutoModelForCausalLM

from agent.config.lora import Lora
from agent.errors import BadInput, Cancelled, NesyLoraError
from agent.records.actions import TrainLora
from agent.records.examples import Example, Prompt
from agent.records.training import Training, TrainingJob, read_training
from graphs.context import new_run
from graphs.session import open_session
from tests.tools.training.forked_ranks import run_script
from tools.model.chat_template import TokenRow
from tools.training import parallel_worker
from tools.training.parallel import Failure, Job, _emptied, check_devices, run_job
from tools.training.ranks import Ranks, divide

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def trained(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders named after how many processes have trained in them."""
    place = tmp_path_factory.mktemp("trained")
    run_script("forked_ranks.py", tiny_model("llama"), place)
    return place


def log(folder: Path, rank: int = 0) -> Training:
    return Training.model_validate_json((folder / f"{rank}.json").read_bytes())


@pytest.mark.parametrize("way", ["2", "3", "ahead", "sharded"])
def test_losses_norms_and_weights_are_those_of_one_process(trained: Path, way: str) -> None:
    alone, together = trained / "1", trained / way
    assert len(log(alone).steps) == 6
    for mine, theirs in zip(log(together).steps, log(alone).steps, strict=True):
        assert (mine.loss, mine.grad_norm) == pytest.approx((theirs.loss, theirs.grad_norm), rel=1e-5)
    ours, plain = (load_file(folder / "made" / "adapter_model.safetensors") for folder in (together, alone))
    assert ours.keys() == plain.keys()
    for name, weight in plain.items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-5, atol=1e-5)


def test_processes_that_were_cut_off_go_on_after_the_last_checkpoint_with_the_same_draws(trained: Path) -> None:
    assert log(trained / "cut").steps == log(trained / "dropout").steps != log(trained / "2").steps
    ours, whole = (load_file(trained / way / "made" / "adapter_model.safetensors") for way in ("cut", "dropout"))
    assert ours.keys() == whole.keys() and all(torch.equal(ours[name], whole[name]) for name in whole)


def test_a_base_that_is_divided_trains_plain_adapters_of_the_whole_one(
    trained: Path, tiny_model: Callable[[str], Path]
) -> None:
    """Each of two processes keeps half of it. An adapter is continued, too, and peft alone reads what was saved."""
    assert [float((trained / "sharded" / f"{rank}.kept").read_text()) for rank in range(2)] == pytest.approx([0.5] * 2)
    losses = [[step.loss for step in read_training(trained / way / "more").steps] for way in ("1", "sharded")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    logits = []
    for way in ("1", "sharded"):
        base = AutoModelForCausalLM.from_pretrained(tiny_model("llama"))
        adapted = PeftModel.from_pretrained(base, trained / way / "more")
        logits.append(adapted(input_ids=torch.arange(3, 20)[None]).logits)
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-4, atol=1e-4)


def test_every_process_knows_the_same_steps_and_tokens(trained: Path) -> None:
    """So they all stop at the same step, whatever limit is reached."""
    logs = [log(trained / "3", rank) for rank in range(3)]
    assert len({(entry.steps, entry.tokens, entry.stopped) for entry in logs}) == 1
    assert logs[0].tokens == log(trained / "1").tokens


class Packs:
    """As much of a backbone as dividing takes."""

    packs = True


@given(
    st.lists(st.lists(st.integers(1, 300), min_size=0, max_size=12), min_size=1, max_size=3),
    st.integers(1, 5),
    st.integers(0, 200),
)
def test_rows_are_divided_so_that_all_are_done_at_about_the_same_time(
    sizes: list[list[int]], parts: int, shared: int
) -> None:
    batches = [[TokenRow([7] * shared + [n] * size, [1]) for n, size in enumerate(batch)] for batch in sizes]
    divided = divide(Packs(), batches, parts)  # type: ignore[arg-type]
    for number, batch in enumerate(batches):
        found = [row for part in divided for row in part[number]]
        assert sorted(map(id, found)) == sorted(map(id, batch))
    costs = [sum(sum(map(len, rows)) - shared * (len(rows) - 1) for rows in part if rows) for part in divided]
    dearest = max((len(row) for batch in batches for row in batch), default=0)
    assert max(costs) - min(costs) <= dearest + shared * len(batches)


def test_more_processes_than_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_devices("cuda", 2), check_devices("cpu", 9)
    with pytest.raises(BadInput, match="processes: 4, but this machine has 2 CUDA devices"):
        check_devices("cuda", 4)
    with pytest.raises(BadInput, match="set processes: 1"):
        check_devices("mps", 2)


def test_they_are_refused_before_any_work(
    tiny_task: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    run = new_run(tiny_task(processes=4, device="cuda"), runs=tmp_path / "runs")
    with pytest.raises(BadInput, match="processes: 4, but this machine has 2"), open_session(run) as session:
        session.go()
    assert not run.path.exists(), "nothing was measured"


@pytest.mark.parametrize("shard", [False, True])
def test_a_process_that_dies_ends_the_others_and_resume_trains_again(
    tiny_task: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard: bool
) -> None:
    lora = {"epochs": 1, "rank": 4, "batch_size": 4, "replay": 0}
    task = tiny_task(processes=2, shard=shard, policy="lora-only", budget={"rounds": 1}, lora=lora)
    run = new_run(task, ["recall.prompts=0"], tmp_path / "runs")
    seen: list[psutil.Process] = []
    place = run.path / "training"
    (place / "old").mkdir(parents=True)  # left there when all processes were killed together

    def kill(said: object) -> None:
        """Rank 1, as soon as it is there."""
        found = [process for process in psutil.Process().children(recursive=True) if _rank(process) is not None]
        if not seen and len(found) == 2:
            assert (place / "job.json").exists() and not (place / "old").exists()
            seen.extend(found)
            next(process for process in found if _rank(process) == "1").kill()

    died = pytest.raises(NesyLoraError, match=r"process 1 of 2 ended with code -9 \(killed, or out of memory\)")
    with died, open_session(run) as session:
        monkeypatch.setattr(session.services.trainer, "_tell", kill)
        session.go()
    assert len(seen) == 2 and not psutil.wait_procs(seen, timeout=10)[1]
    assert not list(run.path.glob("adapters/*")) and run.outcome() is None and not place.exists()
    with open_session(run) as session:
        session.go()
    [folder] = (path for path in run.path.glob("adapters/*") if (path / "complete").exists())
    assert read_training(folder).processes == 2 and len(run.rounds()) == 1
    assert run.rounds()[0].spend.train_tokens == read_training(folder).tokens


def test_a_folder_that_cannot_go_yet_stops_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, old = tmp_path / ".nfs0001", tmp_path / "failure-0.json"
    for file in (held, old):
        file.touch()
    monkeypatch.setattr("tools.training.parallel.shutil.rmtree", lambda *_, **__: old.unlink(missing_ok=True))
    with _emptied(tmp_path):
        assert [*tmp_path.iterdir()] == [held]


@pytest.fixture
def job(tiny_model: Callable[[str], Path], tmp_path: Path) -> Job:
    return Job(
        model=str(tiny_model("llama")), device="cpu", dtype="float32", chat_template_kwargs={}, lora=Lora(),
        training=TrainingJob(
            adapter="a", rows=[(Prompt(), Example(name="t", question="Who?", answer="I."))], action=TrainLora(),
            folder=tmp_path / "a", parent=None, seed=0,
        ),
        parent_folder=None,
    )  # fmt: skip


def test_where_memory_does_not_hold_a_divided_base_the_step_fails_with_a_way_out(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others wait for this process in the midst of a pass, so no smaller one can be tried."""

    def out_of_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    (tmp_path / "job.json").write_text(job.model_copy(update={"shard": True}).model_dump_json())
    monkeypatch.setattr(parallel_worker, "train", out_of_memory)
    monkeypatch.setattr(distributed, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(Ranks, "of_this_group", lambda: Ranks(1, 2))
    monkeypatch.setenv("RANK", "1")
    assert parallel_worker.work(tmp_path) == 1
    failure = Failure.model_validate_json((tmp_path / "failure-1.json").read_bytes())
    assert failure.kind == "StepFailed" and "set lora.checkpointing: true, or lower" in failure.message


def test_a_training_that_is_broken_off_leaves_no_process(job: Job, tmp_path: Path) -> None:
    before, seen = psutil.Process().children(recursive=True), []

    def cancel(said: object) -> None:
        seen.extend(process for process in psutil.Process().children(recursive=True) if process not in before)
        raise Cancelled

    with pytest.raises(Cancelled):
        run_job(job, tmp_path, 2, cancel)
    assert seen and not psutil.wait_procs(seen, timeout=0)[1]


def _rank(process: psutil.Process) -> str | None:
    try:
        return process.environ().get("RANK")
    except psutil.Error:
        return None
