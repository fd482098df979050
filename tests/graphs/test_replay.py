"""General rows beside a training, in whole runs."""

from collections.abc import Callable
from pathlib import Path

from agent.records.training import read_training
from graphs.context import Context, new_run
from graphs.services.run import RunServices
from graphs.session import open_session


def test_a_round_says_how_many_general_rows_it_trained_on_and_the_base_is_measured_once(
    tiny_task: Callable[..., Path], tmp_path: Path
) -> None:
    task = tiny_task(lora={"epochs": 2, "rank": 4, "batch_size": 2, "replay": 0.5})
    with open_session(new_run(task, ["policy=lora-only", "budget.rounds=1"], tmp_path / "runs")) as session:
        session.go()
        folder = session.services.folder
    [row] = folder.rounds()
    pair = row.trial.candidate
    assert pair is not None and pair.adapter is not None
    assert "0.5 general rows each" in str(row.decision.move)
    assert "with 2 general rows an epoch against forgetting" in row.trial.note
    assert read_training(folder.adapter_folder(pair.adapter)).general == 2
    again = RunServices(Context(run=str(folder.path)))
    first = again.forgetting.drift(pair.adapter)
    baseline = folder.general_baseline()
    assert first is not None and baseline is not None
    folder.save_general_baseline(
        baseline.model_copy(update={"losses": tuple(1 + (loss or 0) for loss in baseline.losses)})
    )
    (folder.path / "drifts.json").unlink()
    known = RunServices(Context(run=str(folder.path))).forgetting.drift(pair.adapter)
    assert known is not None and abs(known - (first - 1)) < 1e-4, "it is read, not measured again"
    assert again.forgetting.drift(None) == 0, "the bare base has lost nothing"
