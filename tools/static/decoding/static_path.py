"""The fast way to answers on CUDA: static batches, captured steps, adapters merged into a copy of the weights.

Where a device, a model or an adapter cannot, nothing is lost but time: answers are decoded eagerly.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tools.static.decoding.decoder import StaticDecoder
from tools.static.decoding.decoding_weights import DecodingWeights
from tools.static.decoding.support import static_steps_work
from tools.static.kernels.fused_norms import FusedNorms
from tools.static.kernels.fused_rotary import FusedRotary
from tools.training.memory_budget import free_memory

DEVICES = ("cuda",)  # elsewhere launches do not dominate
IDLE_SHARE = 0.1  # of the free memory, that may stay taken while nothing is decoded


class StaticPath:
    """What is kept for it from one call to the next.

    Args:
        base: the model that answers.
        possible: whether it runs packed, which is the condition.
    """

    def __init__(self, base: Any, possible: bool) -> None:
        self._base = base
        self._works: bool | None = None if possible and base.device.type in DEVICES else False
        self._decoder = StaticDecoder(base)
        self._weights = DecodingWeights(base)
        self._norms: FusedNorms | None = None
        self._rotary: FusedRotary | None = None

    @contextmanager
    def ready(self, adapter: str | None) -> Iterator[StaticDecoder | None]:
        """What decodes in static steps. Meanwhile the base answers as with this adapter, which is active.

        Yields:
            None where the device, the model or the adapter cannot; then nothing is changed.
        """
        if self._works is None:
            self._works = static_steps_work(self._base)
        if not self._works:
            yield None
            return
        if self._norms is None or self._rotary is None:
            self._norms, self._rotary = FusedNorms(self._base), FusedRotary(self._base)
        with self._weights.active(adapter) as ready:
            if not ready:
                yield None
                return
            with self._norms.active(), self._rotary.active():
                self._decoder.weights = self._addresses()
                yield self._decoder

    def _addresses(self) -> int:
        """Stands for the memory of all weights that the base runs with. Captured steps read there and nowhere else."""
        return hash(tuple(weight.data_ptr() for name, weight in self._base.named_parameters() if "lora_" not in name))

    def release(self, all_of_it: bool) -> None:
        """Give buffers, graphs and copied weights back; unless all is wanted, only if they take much memory.

        Whatever stays, weights may change afterwards.
        """
        self._weights.forget()
        taken = self._decoder.bytes + self._weights.bytes
        if all_of_it or taken > IDLE_SHARE * free_memory(self._base.device):
            self._decoder.release()
            self._weights.release()
