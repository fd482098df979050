"""Static steps on every device: on a CPU without graphs, the same code."""

import pytest

from tools.static.decoding import decoder


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Static steps are taken on every device."""
    monkeypatch.setattr("tools.static.decoding.static_path.DEVICES", ("cuda", "cpu", "mps"))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size of the batch of every static step."""
    taken: list[int] = []
    advance = decoder.StaticDecoder.advance
    monkeypatch.setattr(decoder.StaticDecoder, "advance", lambda d, batch: (taken.append(batch.B), advance(d, batch)))
    return taken
