"""Linear layers of one input as one product."""

from collections.abc import Callable, Sequence

import torch
from torch.nn.functional import linear


class SideBySide:
    """A weight that holds those of several layers, one below the other.

    The layers are called one after the other with the same tensor, as architectures do: the first call computes what
    all return. A call with another tensor is computed alone.

    Args:
        layers: of the same number of inputs and the same type, with biases all or none.

    Attributes:
        weights: the part of each layer, to be filled.
    """

    def __init__(self, layers: Sequence[torch.nn.Linear]) -> None:
        first = layers[0].weight
        sizes = [layer.out_features for layer in layers]
        self._weight = torch.empty(sum(sizes), layers[0].in_features, dtype=first.dtype, device=first.device)
        self.weights = [torch.nn.Parameter(part, requires_grad=False) for part in self._weight.split(sizes)]
        self._biases = [layer.bias for layer in layers]
        self._bias = None if layers[0].bias is None else torch.cat([layer.bias.detach() for layer in layers])
        self._sizes = sizes
        self._input: torch.Tensor | None = None
        self._outputs: Sequence[torch.Tensor] = ()

    @staticmethod
    def fits(layers: Sequence[torch.nn.Linear]) -> bool:
        """Whether they can be one product."""
        kinds = {(type(layer), layer.in_features, layer.weight.dtype, layer.bias is None) for layer in layers}
        return len(kinds) == 1 and type(layers[0]) is torch.nn.Linear

    def part(self, place: int) -> Callable[[torch.Tensor], torch.Tensor]:
        """The forward function of the layer at a place."""

        def forward(x: torch.Tensor) -> torch.Tensor:
            if place == 0:
                self._input, self._outputs = x, linear(x, self._weight, self._bias).split(self._sizes, dim=-1)
            elif x is not self._input:
                return linear(x, self.weights[place], self._biases[place])
            output = self._outputs[place]
            if place == len(self._sizes) - 1:
                self._input, self._outputs = None, ()  # nothing is held from one layer to the next
            return output

        return forward
