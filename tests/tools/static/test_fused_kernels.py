"""Fused norms and rotary positions: the same numbers, and the model's own code afterwards."""

from collections.abc import Callable

import pytest
import torch
from transformers.models.llama import modeling_llama

from tools.model.backbone import Backbone
from tools.static.kernels.fused_norms import FusedNorms
from tools.static.kernels.fused_rotary import FusedRotary, turned


@pytest.mark.parametrize("adjacent", [True, False])
def test_queries_and_keys_are_turned_as_by_the_models_code(adjacent: bool) -> None:
    product = torch.randn(1, 5, 6 * 8 + 3)
    q, k = (part.view(1, 5, -1, 8).transpose(1, 2) for part in product[..., : 6 * 8].split([32, 16], dim=-1))
    if not adjacent:
        k = k.clone()
    cos, sin = torch.randn(2, 1, 5, 8)
    for ours, wanted in zip(turned(q, k, cos, sin), modeling_llama.apply_rotary_pos_emb(q, k, cos, sin), strict=True):
        assert ours.shape == wanted.shape
        assert torch.allclose(ours, wanted, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma3", "gpt2"])
def test_logits_stay_and_the_models_code_comes_back(name: str, backbone: Callable[..., Backbone]) -> None:
    model = backbone(name).base
    for weight in (weight for key, weight in model.named_parameters() if "norm" in key):
        torch.nn.init.normal_(weight, 1.0, 0.3)
    ids = torch.arange(3, 20, device=model.device)[None]
    norms, rotary = FusedNorms(model), FusedRotary(model)
    before = modeling_llama.apply_rotary_pos_emb
    with torch.no_grad():
        wanted = model(ids).logits
        with norms.active(), rotary.active():
            assert (modeling_llama.apply_rotary_pos_emb is turned) == (name == "llama")
            assert bool(norms._norms) == (name in ("llama", "qwen2"))  # Gemma's add one to the weight
            fused = model(ids).logits
        assert modeling_llama.apply_rotary_pos_emb is before
        assert not any("forward" in vars(module) for module in model.modules())
        assert torch.allclose(fused, wanted, rtol=1e-4, atol=1e-4)
        assert torch.equal(model(ids).logits, wanted)


def test_gradients_go_through_the_fused_rotation() -> None:
    """Another thread may train a model of the same code, meanwhile."""
    gradients = []
    for function in (turned, modeling_llama.apply_rotary_pos_emb):
        torch.manual_seed(0)
        product = torch.randn(1, 5, 6 * 8, requires_grad=True)
        q, k = (part.view(1, 5, -1, 8).transpose(1, 2) for part in product.split([32, 16], dim=-1))
        outputs = function(q, k, *torch.randn(2, 1, 5, 8))
        sum((output * torch.randn_like(output)).sum() for output in outputs).backward()
        gradients.append(product.grad)
    assert torch.allclose(*gradients, atol=1e-5)


def test_a_norm_that_somebody_has_wrapped_is_left_alone(backbone: Callable[..., Backbone]) -> None:
    model = backbone().base
    norm = next(module for module in model.modules() if type(module).__name__ == "LlamaRMSNorm")
    wrapped = norm.forward = lambda x: 2 * x
    with FusedNorms(model).active():
        assert norm.forward is wrapped
    assert norm.forward is wrapped


def test_a_norm_of_two_inputs_is_no_plain_one() -> None:
    class GatedRMSNorm(torch.nn.RMSNorm):
        variance_epsilon = 1e-6

        def forward(self, x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * gate

    assert not FusedNorms(torch.nn.ModuleList([GatedRMSNorm(8)]))._norms
