"""Fast LoRA layers, held against peft's own: where they serve, the same sum; where they do not, peft's."""

import copy
from typing import Any

import peft
import pytest
import torch
from torch import nn

from tools.adapters import fast_lora as module
from tools.adapters.fast_lora import FastLoraLinear, use_fast_lora

X = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))


class Two(nn.Module):
    """Two linear layers, one with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8, bias=False), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.second(torch.tanh(self.first(x)))
        return output


def pair(**options: Any) -> tuple[Any, Any]:
    """The same adapted model twice: as peft made it, and with the fast LoRA layers."""
    torch.manual_seed(0)
    plain = peft.get_peft_model(Two(), peft.LoraConfig(r=3, target_modules=["first", "second"], **options))
    for name, weight in plain.named_parameters():
        if "lora" in name:
            nn.init.normal_(weight, std=0.5)
    ours = copy.deepcopy(plain)
    use_fast_lora(ours)
    return plain, ours


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every layer that takes the fast path."""
    seen: list[int] = []

    class Counted(FastLoraLinear):
        @staticmethod
        def apply(*args: Any) -> Any:
            seen.append(1)
            return FastLoraLinear.apply(*args)

    monkeypatch.setattr(module, "FastLoraLinear", Counted)
    return seen


def run(model: Any, x: torch.Tensor) -> list[torch.Tensor]:
    """What it says, and the gradients of its input and of every weight that is trained."""
    x = x.clone().requires_grad_()
    output = model(x)
    output.float().square().sum().backward()
    assert x.grad is not None
    return [output.detach(), x.grad, *(weight.grad for weight in model.parameters() if weight.requires_grad)]


def same(mine: list[torch.Tensor], theirs: list[torch.Tensor], tolerance: float = 1e-5) -> bool:
    return len(mine) == len(theirs) and all(
        (a.float() - b.float()).norm() <= tolerance * b.float().norm() for a, b in zip(mine, theirs, strict=True)
    )


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"lora_alpha": 5}, {"rank_pattern": {"second": 2}}])
def test_plain_lora_takes_the_fast_path_to_the_same_numbers(options: dict[str, Any], used: list[int]) -> None:
    plain, ours = pair(**options)
    assert same(run(ours, X), run(plain, X))
    assert len(used) == 2


@pytest.mark.parametrize(
    "options",
    [{"use_dora": True}, {"lora_bias": True}, {"bias": "all"}, {"bias": "lora_only"}],
    ids=lambda options: next(iter(options)) + str(next(iter(options.values()))),
)
def test_what_is_more_than_lora_takes_pefts_way(options: dict[str, Any], used: list[int]) -> None:
    plain, ours = pair(**options)
    assert same(run(ours, X), run(plain, X))
    assert len(used) == ("bias" in options)  # the first layer has no bias that could be trained
    assert not any(weight.grad is None for weight in ours.parameters() if weight.requires_grad)


def test_dropout_is_pefts_while_training_only(used: list[int]) -> None:
    plain, ours = pair(lora_dropout=0.5)
    torch.manual_seed(1)
    mine = run(ours.train(), X)
    torch.manual_seed(1)
    assert same(mine, run(plain.train(), X)) and not used
    assert same([ours.eval()(X).detach()], [plain.eval()(X).detach()]) and len(used) == 2


def test_switched_off_merged_or_two_at_once_is_pefts(used: list[int]) -> None:
    plain, ours = pair()
    with plain.disable_adapter(), ours.disable_adapter():
        assert same([ours(X).detach()], [plain(X).detach()])
    for model in (plain, ours):
        torch.manual_seed(2)
        model.add_adapter("other", peft.LoraConfig(r=2, target_modules=["first"], init_lora_weights=False))
        model.base_model.set_adapter(["default", "other"])
    assert same([ours(X).detach()], [plain(X).detach()])
    ours.base_model.set_adapter("default")
    ours.merge_adapter()
    ours(X)
    assert not used


def test_an_adapter_in_full_precision_on_a_base_in_half(used: list[int]) -> None:
    plain, ours = pair()
    for model in (plain, ours):
        for name, weight in model.named_parameters():
            weight.data = weight.data if "lora" in name else weight.data.to(torch.bfloat16)
    mine = run(ours, X.to(torch.bfloat16))
    assert same(mine, run(plain, X.to(torch.bfloat16)), tolerance=2e-2)
    assert len(used) == 2
    assert {weight.grad.dtype for weight in ours.parameters() if weight.requires_grad} == {torch.float32}


def test_its_output_may_be_changed_in_place_and_no_tokens_are_no_error() -> None:
    plain, ours = pair()
    results = []
    for model in (plain, ours):
        x = X.clone().requires_grad_()
        model(x).clamp_(-0.5, 0.5).sum().backward()
        results.append(x.grad)
    assert torch.allclose(*results, atol=1e-6)
    assert ours(X[:, :0]).shape == (2, 0, 4)
