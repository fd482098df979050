"""peft's linear LoRA layers without detours: the same sum, forward and back, with less kept and fewer passes.

Scaling and adding up tensors as wide as the layer costs a quarter of decoding, and keeping them a quarter of the
memory of a training step. So an adapter need not be merged into the base to answer as fast.
"""

from types import MethodType
from typing import Any

import torch
from peft.tuners.lora.layer import Linear


def use_fast_lora(model: torch.nn.Module) -> None:
    """Give every LoRA layer over a plain linear one the shorter way; it takes peft's own where that says more."""
    for module in model.modules():
        if type(module) is Linear and type(module.base_layer) is torch.nn.Linear:
            module.forward = MethodType(_forward, module)


def _forward(layer: Any, x: torch.Tensor, *args: Any, **given: Any) -> torch.Tensor:
    adapter = _only_adapter(layer)
    if adapter is None or args or given or layer.lora_B[adapter].bias is not None:
        return Linear.forward(layer, x, *args, **given)  # type: ignore[no-any-return]
    down, up, base = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight, layer.base_layer
    rows = x.reshape(-1, x.shape[-1])
    said: torch.Tensor = FastLoraLinear.apply(rows, base.weight, base.bias, down, up, layer.scaling[adapter])
    return said.view(*x.shape[:-1], base.out_features)


def _only_adapter(layer: Any) -> str | None:
    """The one active adapter, where it is LoRA as in the paper: no variant, no dropout at work, the base frozen."""
    if layer.disable_adapters or layer.merged or len(layer.active_adapters) != 1:
        return None
    if any(weight.requires_grad for weight in layer.base_layer.parameters()):
        return None
    adapter: str = layer.active_adapters[0]
    if adapter not in layer.lora_A or adapter in layer.lora_variant:
        return None
    dropout = layer.lora_dropout[adapter]
    return None if layer.training and not isinstance(dropout, torch.nn.Identity) else adapter


class FastLoraLinear(torch.autograd.Function):
    """x Wᵀ + bias + s · (x Aᵀ) Bᵀ for x [N, in], W [out, in], A [r, in], B [out, r]; W and the bias are frozen.

    Computed in the type of x. Where A and B are kept in fp32 over a base in half precision, so are their gradients.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        low = (x @ down.to(x.dtype).t()).mul_(scale)
        ctx.save_for_backward(x, weight, down, up, low)
        ctx.scale = scale
        return torch.nn.functional.linear(x, weight, bias).addmm_(low, up.to(x.dtype).t())

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, down, up, low = ctx.saved_tensors
        narrow = (grad @ up.to(x.dtype)).mul_(ctx.scale)
        back = (grad @ weight).addmm_(narrow, down.to(x.dtype)) if ctx.needs_input_grad[0] else None
        return back, None, None, (narrow.t() @ x).to(down.dtype), (grad.t() @ low).to(up.dtype), None
