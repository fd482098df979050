"""peft's linear LoRA layers with fewer intermediate tensors: the same sum, forward and backward.

peft scales and adds tensors as wide as the layer's output, which takes a quarter of the time of decoding; keeping them
for the backward pass takes a quarter of a training step's memory. With this, an adapter need not be merged into the
base to answer as fast.
"""

from types import MethodType
from typing import Any

import torch
from peft.tuners.lora.layer import Linear


def use_fast_lora(model: torch.nn.Module) -> None:
    """Give every LoRA layer over a plain linear layer this forward; it falls back on peft's for other settings."""
    for module in model.modules():
        if type(module) is Linear and type(module.base_layer) is torch.nn.Linear:
            module.forward = MethodType(_forward, module)


def _forward(layer: Any, x: torch.Tensor, *args: object, **options: object) -> torch.Tensor:
    """x [..., in features] -> [..., out features]."""
    adapter = _plain_adapter(layer)
    if adapter is None or args or options or layer.lora_B[adapter].bias is not None:
        return Linear.forward(layer, x, *args, **options)  # type: ignore[no-any-return]
    down, up, base = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight, layer.base_layer
    rows = x.reshape(-1, x.shape[-1])
    out: torch.Tensor = FastLoraLinear.apply(rows, base.weight, base.bias, down, up, layer.scaling[adapter])
    return out.view(*x.shape[:-1], base.out_features)


def _plain_adapter(layer: Any) -> str | None:
    """The one active adapter, if it is LoRA as in the paper: no variant, no dropout in effect, the base frozen."""
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
    """x Wᵀ + bias + scale · (x Aᵀ) Bᵀ, with W and the bias frozen (Hu et al. 2021, section 4.1).

    Shapes, with N = B · T tokens and rank r: x [N, in], W [out, in], bias [out], A [r, in], B [out, r]. It is computed
    in the type of x. Where A and B are in fp32 over a base in half precision, so are their gradients.
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
        low = (x @ down.to(x.dtype).t()).mul_(scale)  # [N, r]
        ctx.save_for_backward(x, weight, down, up, low)
        ctx.scale = scale
        return torch.nn.functional.linear(x, weight, bias).addmm_(low, up.to(x.dtype).t())  # [N, out]

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, down, up, low = ctx.saved_tensors
        grad_low = (grad @ up.to(x.dtype)).mul_(ctx.scale)  # [N, r]
        grad_x = (grad @ weight).addmm_(grad_low, down.to(x.dtype)) if ctx.needs_input_grad[0] else None  # [N, in]
        grad_down = (grad_low.t() @ x).to(down.dtype)  # [r, in]
        grad_up = (grad.t() @ low).to(up.dtype)  # [out, r]
        return grad_x, None, None, grad_down, grad_up, None
