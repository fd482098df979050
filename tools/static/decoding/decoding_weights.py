"""A copy of the weights that answers are generated with: adapters merged, and products of one input side by side.

A merged adapter costs nothing per token, and one product over the queries', keys' and values' weights is quicker than
three. The copy has its own memory, always the same, so that captured steps read the next adapter's weights where they
read the last one's. The base itself is not touched.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper

from tools.memory_budget import free_memory, is_out_of_memory
from tools.static.kernels.side_by_side import SideBySide

SHARE = 0.4  # of the free memory that the copy may take
FLOATS = (torch.float32, torch.bfloat16, torch.float16)  # quantised weights are not copied
SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))  # layers of one input, in common architectures


class DecodingWeights:
    """The copy for one base model, and what it holds."""

    def __init__(self, base: torch.nn.Module) -> None:
        self._base = base
        self._copies: dict[str, torch.nn.Parameter] = {}  # by the name of the layer
        self._products: list[tuple[tuple[str, ...], SideBySide]] = []
        self._sources: dict[str, tuple[Any, ...]] = {}  # what each copy was made of

    @property
    def bytes(self) -> int:
        """What the copies hold."""
        return sum(copy.numel() * copy.itemsize for copy in self._copies.values())

    def release(self) -> None:
        """Give the memory back."""
        self._copies.clear()
        self._products.clear()
        self.forget()

    def forget(self) -> None:
        """Weights may change without notice: the next answers have them copied anew."""
        self._sources.clear()

    @contextmanager
    def active(self, adapter: str | None) -> Iterator[bool]:
        """The base answers with the copies, into which this adapter is merged.

        The adapter's product is added in the base's type, and rounded once. Afterwards every layer has the weight and
        the forward function that it had before: the same objects.

        Args:
            adapter: the active one; None: all are disabled.

        Yields:
            Whether the base can be decoded in static steps. False: nothing was changed, because the adapter is no
            plain LoRA, or memory has no room for the copies. Without an adapter no copies are needed.
        """
        layers = self._linear_layers(adapter)
        if layers is None or not self._filled(layers, adapter):
            yield adapter is None  # which needs none
            return
        used = [(layers[name], bare(layers[name]), copy) for name, copy in self._copies.items()]
        before = [(layer, inner.weight, vars(layer).get("forward")) for layer, inner, _ in used]
        try:
            for layer, inner, copy in used:
                inner._parameters["weight"] = copy
                layer.forward = inner.forward if inner is not layer else type(layer).forward.__get__(layer)
            for names, product in self._products:
                for place, name in enumerate(names):
                    layers[name].forward = product.part(place)
            yield True
        finally:
            for (layer, inner, _), (_, weight, forward) in zip(used, before, strict=True):
                inner._parameters["weight"] = weight
                vars(layer).pop("forward", None)
                if forward is not None:
                    layer.forward = forward

    def _linear_layers(self, adapter: str | None) -> dict[str, Any] | None:
        """By name; None where an adapter is attached that changes anything in another way than by a plain LoRA."""
        layers: dict[str, Any] = {}
        inside: tuple[str, ...] = ()
        for name, module in self._base.named_modules():
            if isinstance(module, AuxiliaryTrainingWrapper):
                return None
            if name.startswith(inside):
                continue
            if isinstance(module, BaseTunerLayer):
                if type(module) is not Linear or module.merged or not _is_plain(module.base_layer.weight):
                    return None
                if adapter in module.lora_A and (
                    adapter in module.lora_variant or module.lora_B[adapter].bias is not None
                ):
                    return None
                layers[name] = module
                inside = (f"{name}.",)
            elif type(module) is torch.nn.Linear and _is_plain(module.weight):
                layers[name] = module
        return layers

    # --- copies ---

    def _filled(self, layers: dict[str, Any], adapter: str | None) -> bool:
        """Whether the copies hold this adapter; where memory ran out, there are none afterwards."""
        try:
            if not self._has_copies(layers, adapter):
                return False
            for name, copy in self._copies.items():
                self._fill(name, layers[name], adapter, copy)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            self.release()
            return False
        return True

    def _has_copies(self, layers: dict[str, Any], adapter: str | None) -> bool:
        """Make those that are missing, if memory has room for them."""
        adapted = {name for name, layer in layers.items() if _adapts(layer, adapter)}
        if adapted <= self._copies.keys() and self._copies:
            return True
        groups = [] if self._copies else self._groups(layers)
        grouped = [name for names in groups for name in names]
        single = sorted(adapted - self._copies.keys() - set(grouped))
        weights = [bare(layers[name]).weight for name in (*grouped, *single)]
        if not weights:
            return adapter is None
        if sum(weight.numel() * weight.itemsize for weight in weights) > SHARE * free_memory(weights[0].device):
            return False
        for names in groups:
            product = SideBySide([bare(layers[name]) for name in names])
            self._products.append((names, product))
            self._copies |= dict(zip(names, product.weights, strict=True))
        for name in single:
            self._copies[name] = torch.nn.Parameter(torch.empty_like(bare(layers[name]).weight), requires_grad=False)
        return True

    def _groups(self, layers: dict[str, Any]) -> list[tuple[str, ...]]:
        """Names of layers that can be one product."""
        groups = []
        for first in layers:
            parent, _, last = first.rpartition(".")
            for siblings in SIBLINGS:
                names = tuple(f"{parent}.{sibling}" for sibling in siblings)
                if last != siblings[0] or not layers.keys() >= set(names):
                    continue
                if SideBySide.fits([bare(layers[name]) for name in names]):
                    groups.append(names)
        return groups

    def _fill(self, name: str, layer: Any, adapter: str | None, copy: torch.Tensor) -> None:
        """Unless it holds that already."""
        weight = bare(layer).weight
        merges = _adapts(layer, adapter)
        parts = [layer.lora_A[adapter].weight, layer.lora_B[adapter].weight] if merges else []
        source = (*((part, part._version) for part in (weight, *parts)), layer.scaling[adapter] if merges else None)
        if name in self._sources and _same(self._sources[name], source):
            return
        with torch.no_grad():
            if merges:
                down, up = (part.to(weight.dtype) for part in parts)
                left, right = (down.t(), up.t()) if layer.fan_in_fan_out else (up, down)
                torch.addmm(weight, left, right, alpha=layer.scaling[adapter], out=copy.data)
            else:
                copy.data.copy_(weight)
        self._sources[name] = source


def bare(layer: Any) -> Any:
    """The base's own layer."""
    return layer.base_layer if isinstance(layer, BaseTunerLayer) else layer


def _is_plain(weight: torch.Tensor) -> bool:
    """Whether it holds plain numbers: no quantised ones, and no tensor of a kind that another library made."""
    return type(weight) is torch.nn.Parameter and weight.dtype in FLOATS


def _adapts(layer: Any, adapter: str | None) -> bool:
    """Whether the adapter changes this layer."""
    return adapter is not None and adapter in getattr(layer, "lora_A", ())


def _same(left: tuple[Any, ...], right: tuple[Any, ...]) -> bool:
    """Whether both are the same tensors in the same versions, with the same scale."""
    *old, old_scale = left
    *new, new_scale = right
    pairs = zip(old, new, strict=False)
    return len(old) == len(new) and old_scale == new_scale and all(a is b and v == w for (a, v), (b, w) in pairs)
