"""Which device a model gets, and in which precision."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from agent.errors import BadInput
from tools.model import loading
from tools.model.loading import load_model, pick_dtype
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


def test_a_base_that_all_cards_together_do_not_hold_is_refused(
    tiny_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers puts the rest on the host, where a token would take minutes."""
    asked = {}

    def spread(source: str, **options: Any) -> PreTrainedModel:
        asked["device_map"] = options.pop("device_map")
        model = load(source, **options)
        model.hf_device_map = {"model": 0, "lm_head": "cpu"}
        return model

    load = AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", spread)
    with pytest.raises(BadInput, match="the 2 CUDA devices of this machine do not hold"):
        load_model(str(tiny_model("llama")), device="cuda", dtype="float32", spread=True, progress=lambda *_: None)
    assert asked["device_map"] == "auto"


@pytest.mark.parametrize("device", ["mps", "cpu"])
def test_doctor_names_the_device_and_how_it_works(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "pick_device", lambda wanted="auto": device)
    [line] = [line for _, line in [doctor._device()]]
    assert line.startswith(f"device: {device}, float32") and ("kernel by kernel" in line) == (device == "mps")
