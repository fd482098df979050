"""The fast way to answers on CUDA: static batches, captured steps, adapters merged into a copy of the weights.

Where a device, a model or an adapter cannot, nothing is lost but time: answers are decoded eagerly.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tools.memory_budget import free_memory
from tools.static.decoding.decoder import StaticDecoder
from tools.static.decoding.support import static_steps_work
from tools.static.kernels.fused_norms import FusedNorms
from tools.static.kernels.fused_rotary import FusedRotary

if TYPE_CHECKING:
    from tools.static.decoding.decoding_weights import DecodingWeights

DEVICES = ("cuda",)  # elsewhere launches do not dominate
IDLE_SHARE = 0.1  # of the free memory, that may stay taken while nothing is decoded


@dataclass(frozen=True)
class _Parts:
    decoder: StaticDecoder
    weights: "DecodingWeights"
    norms: FusedNorms
    rotary: FusedRotary

    @contextmanager
    def fused(self) -> Iterator[None]:
        """The model runs with the fused kernels, meanwhile."""
        with self.norms.active(), self.rotary.active():
            yield


class StaticPath:
    """What is kept for it from one call to the next. Nothing is made before the first answer, nor on other devices.

    Args:
        base: the model that answers.
        possible: whether it runs packed, which is the condition.
    """

    def __init__(self, base: Any, possible: bool) -> None:
        self._base = base
        self._works: bool | None = None if possible and base.device.type in DEVICES else False
        self._parts: _Parts | None = None

    @contextmanager
    def ready(self, adapter: str | None) -> Iterator[StaticDecoder | None]:
        """What decodes in static steps. Meanwhile the base answers as with this adapter, which is active.

        The base must be in evaluation mode: the first call tries it out, and dropout would make it disagree.

        Yields:
            None where the device, the model or the adapter cannot; then nothing is changed.
        """
        if self._works is None:
            self._try_out()
        if self._parts is None:
            yield None
            return
        with self._parts.weights.active(adapter) as ready:
            if not ready:
                yield None
                return
            with self._parts.fused():
                self._parts.decoder.weights = self._addresses()
                yield self._parts.decoder

    def _try_out(self) -> None:
        from tools.static.decoding.decoding_weights import DecodingWeights  # loads peft

        base = self._base
        parts = _Parts(StaticDecoder(base), DecodingWeights(base), FusedNorms(base), FusedRotary(base))
        self._works = static_steps_work(base, parts.fused)
        self._parts = parts if self._works else None

    def _addresses(self) -> int:
        """Stands for the memory of all weights that the base runs with. Captured steps read there and nowhere else."""
        return hash(tuple(weight.data_ptr() for name, weight in self._base.named_parameters() if "lora_" not in name))

    def release(self, all_of_it: bool) -> bool:
        """Give buffers, graphs and copied weights back; unless all is wanted, only if they take much memory.

        Whatever stays, weights may change afterwards.

        Returns:
            Whether there was anything that was given back.
        """
        if self._parts is None:
            return False
        decoder, weights = self._parts.decoder, self._parts.weights
        weights.forget()
        taken = decoder.bytes + weights.bytes
        if not taken or not (all_of_it or taken > IDLE_SHARE * free_memory(self._base.device)):
            return False
        decoder.release()
        weights.release()
        return True
