"""An adapter merged into a copy of the weights it changes, while answers are generated. The base itself is not touched.

A merged adapter costs nothing per token. The copy has its own memory, always the same, so that captured graphs read
the next adapter's weights where they read the last one's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper

from tools.training.memory_budget import free_memory

SHARE = 0.5  # of the free memory that the copy may take


class MergedWeights:
    """The memory for merged weights of one base model."""

    def __init__(self, base: torch.nn.Module) -> None:
        self._base = base
        self._copies: dict[str, torch.nn.Parameter] = {}  # by the name of the layer

    @property
    def bytes(self) -> int:
        """What the copies hold."""
        return sum(copy.numel() * copy.itemsize for copy in self._copies.values())

    def release(self) -> None:
        """Give the memory back."""
        self._copies.clear()

    def can_merge(self, adapter: str) -> bool:
        """Whether the active adapter is a plain LoRA, its base weights are plain, and memory has room for a copy."""
        layers = self._layers(adapter)
        if layers is None:
            return False
        weights = [layer.base_layer.weight for name, layer in layers.items() if name not in self._copies]
        missing = sum(weight.numel() * weight.itemsize for weight in weights)
        return not weights or missing <= SHARE * free_memory(weights[0].device)

    @contextmanager
    def merged(self, adapter: str) -> Iterator[None]:
        """The base answers as with the adapter, by the copies.

        The adapter's product is added in the base's type, and rounded once. Afterwards every layer has the weight and
        the forward function that it had before: the same objects.
        """
        layers = self._layers(adapter)
        assert layers is not None, "it is asked first whether the adapter can be merged"
        before = [(layer, layer.base_layer.weight, vars(layer).get("forward")) for layer in layers.values()]
        try:
            for name, layer in layers.items():
                layer.base_layer._parameters["weight"] = self._filled(name, layer, adapter)
                layer.forward = layer.base_layer.forward
            yield
        finally:
            for layer, weight, forward in before:
                layer.base_layer._parameters["weight"] = weight
                vars(layer).pop("forward", None)
                if forward is not None:
                    layer.forward = forward

    def _filled(self, name: str, layer: Any, adapter: str) -> torch.nn.Parameter:
        weight = layer.base_layer.weight
        if name not in self._copies:
            self._copies[name] = torch.nn.Parameter(torch.empty_like(weight), requires_grad=False)
        down, up = (part[adapter].weight.to(weight.dtype) for part in (layer.lora_A, layer.lora_B))
        left, right = (down.t(), up.t()) if layer.fan_in_fan_out else (up, down)
        with torch.no_grad():
            torch.addmm(weight, left, right, alpha=layer.scaling[adapter], out=self._copies[name].data)
        return self._copies[name]

    def _layers(self, adapter: str) -> dict[str, Any] | None:
        """By name, those that the adapter changes; None where it does so in another way than by a plain LoRA."""
        layers: dict[str, Any] = {}
        for name, module in self._base.named_modules():
            if isinstance(module, AuxiliaryTrainingWrapper):
                return None
            if not isinstance(module, BaseTunerLayer):
                continue
            if type(module) is not Linear or module.merged or not module.base_layer.weight.is_floating_point():
                return None
            if adapter not in module.lora_A:
                continue
            if adapter in module.lora_variant or module.lora_B[adapter].bias is not None:
                return None
            layers[name] = module
        return layers or None
