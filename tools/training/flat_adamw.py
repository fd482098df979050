"""AdamW over all trained weights as one tensor, so that a step is a handful of kernels and waits for nothing."""

from collections.abc import Sequence

import torch


class FlatAdamW:
    """torch's AdamW, with clipping, over a flat tensor that the parameters become views of; so do their gradients.

    Args:
        parameters: all of one type and on one device.
        clip: most that the norm of the gradient may be.

    Attributes:
        gradient: of all parameters, one after the other.
        optimizer: torch's own, over the one flat tensor.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], weight_decay: float, clip: float) -> None:
        self._clip = clip
        self._parameters = list(parameters)
        flat = torch.cat([parameter.data.flatten() for parameter in parameters])
        self.gradient = torch.zeros_like(flat)
        sizes = [parameter.numel() for parameter in parameters]
        for parameter, weights in zip(parameters, flat.split(sizes), strict=True):
            parameter.data = weights.view_as(parameter)
        parts = zip(parameters, self.gradient.split(sizes), strict=True)
        self._gradients = [part.view_as(parameter) for parameter, part in parts]
        self._flat = torch.nn.Parameter(flat)
        self._flat.grad = self.gradient
        self.optimizer = torch.optim.AdamW([self._flat], weight_decay=weight_decay, fused=flat.is_cuda)
        self.attach_gradients()

    def attach_gradients(self) -> None:
        """Let backward passes add to the flat gradient, which starts at zero."""
        self.gradient.zero_()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient

    def collect_gradients(self) -> None:
        """Take gradients that backward passes have put elsewhere."""
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            if parameter.grad is None:
                gradient.zero_()
            elif parameter.grad is not gradient:
                gradient.copy_(parameter.grad)

    def step(self, learning_rate: float) -> torch.Tensor:
        """Clip, step, and set the gradient to zero. Returns the norm before clipping, on the device."""
        norm: torch.Tensor = torch.linalg.vector_norm(self.gradient)
        self.gradient.mul_(torch.clamp(self._clip / (norm + 1e-6), max=1.0))
        self.optimizer.param_groups[0]["lr"] = learning_rate
        self.optimizer.step()
        self.attach_gradients()
        return norm

    def close(self) -> None:
        """The parameters keep their values and let their gradients go."""
        for parameter in self._parameters:
            parameter.grad = None
