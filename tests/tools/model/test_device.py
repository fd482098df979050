"""Which device a model gets, and in which precision."""

from types import SimpleNamespace

import pytest
import torch

from tools.model import loading
from tools.model.loading import pick_dtype
from ui.commands import doctor


@pytest.mark.parametrize(("major", "dtype"), [(7, torch.float32), (8, torch.bfloat16), (9, torch.bfloat16)])
def test_a_card_that_only_emulates_bfloat16_computes_in_fp32(
    major: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: SimpleNamespace(major=major))
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda _: True)  # by emulation, as a T4 does
    assert pick_dtype("cuda") == dtype


@pytest.mark.parametrize("device", ["mps", "cpu"])
def test_doctor_names_the_device_and_how_it_works(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "pick_device", lambda: device)
    [line] = [line for _, line in [doctor._device()]]
    assert line.startswith(f"device: {device}, float32") and ("kernel by kernel" in line) == (device == "mps")
