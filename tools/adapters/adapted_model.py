"""A base model with adapters known by id, as one of several runs that share it sees it."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any, Self

import torch
import transformers

from agent.errors import StepFailed
from agent.protocols import Charge, Progress
from tools.adapters.attached_adapters import AttachedAdapters


class AdaptedModel:
    """The weights, and the adapters on them.

    One loaded model may serve several runs and threads. Each run has a view of its own (`of`); all views share the
    weights, the attached adapters and one lock, which every call holds from its beginning to its end. So answers are
    those of calls one after the other. Whoever needs several calls undisturbed, as training does, holds `lock`.

    Args:
        base: the model without adapters, in evaluation mode, on its device.
        name: what the task calls it.
        locate: the folder of an adapter, from its id.
        progress: shows how far long calls are.
        charge: takes what a call uses up, as it goes on, so that a killed call is charged, too. The sum comes back
            from the call.

    Attributes:
        lock: held by every call; the thread that has it may take it again.
        charge: the argument; training charges its tokens by it.
    """

    def __init__(
        self,
        base: transformers.PreTrainedModel,
        *,
        name: str,
        locate: Callable[[str], Path],
        progress: Progress | None = None,
        charge: Charge | None = None,
    ) -> None:
        self.base = base
        self.name = name
        self.lock = RLock()
        self._adapters = AttachedAdapters(base, name)
        self._bind(locate, progress, charge)

    def view_for(
        self, locate: Callable[[str], Path], progress: Progress | None = None, charge: Charge | None = None
    ) -> Self:
        """This loaded model for another run: with the run's own adapters, progress and charges. Cheap.

        An adapter id means the adapter in this view's folders, also where another run has one of the same id: a switch
        from one to the other reads the weights again.

        Args:
            locate, progress, charge: as in the constructor.
        """
        view = copy.copy(self)
        view._bind(locate, progress, charge)
        return view

    def _bind(self, locate: Callable[[str], Path], progress: Progress | None, charge: Charge | None) -> None:
        self._locate = locate
        self._progress: Progress = progress or (lambda *_: None)
        self.charge: Charge = charge or (lambda _: None)

    @property
    def device(self) -> torch.device:
        return self.base.device

    @property
    def model(self) -> Any:
        """The base, inside peft's wrapper once an adapter has been attached."""
        return self._adapters.model

    @contextmanager
    def using(self, adapter: str | None) -> Iterator[transformers.PreTrainedModel]:
        """The model with this adapter active, or the bare base for None; for this thread alone until the block ends.

        Raises:
            BadInput: there are no weights of this id, or they do not fit the base.
        """
        folder = None if adapter is None else self._locate(adapter)
        with self.lock, self._adapters.using(adapter, folder) as model:
            yield model

    def attach(self, adapter: str, source: str | None = None, trainable: bool = False) -> None:
        """Load an adapter's safetensors (of `source`, if its weights are to be continued) and make it active.

        Raises:
            BadInput: there are no weights of this id, they do not fit the base, or would change it.
        """
        read_from = None if source is None else self._locate(source)
        with self.lock:
            self._adapters.attach(adapter, self._locate(adapter), source=read_from, trainable=trainable)

    def create(self, adapter: str, config: Any) -> None:
        """Attach a new adapter made from a peft config, and make it active.

        Raises:
            Exception: whatever peft raises for a config that the model cannot have.
        """
        with self.lock:
            self._adapters.create(adapter, self._locate(adapter), config)

    def detach(self, adapter: str) -> None:
        """Drop an adapter, if it is attached; its files stay."""
        with self.lock:
            self._adapters.detach(adapter)

    def rank(self, adapter: str) -> int:
        """Rank of an attached adapter; one that continues another has the other's."""
        return self._adapters.rank(adapter)

    def save(self, adapter: str, folder: Path) -> None:
        """Write an attached adapter as safetensors, with peft's adapter_config.json, straight into `folder`."""
        with self.lock:
            self._adapters.save(adapter, folder)

    @contextmanager
    def recomputing(self, wanted: bool) -> Iterator[None]:
        """Activations recomputed in the backward pass instead of kept (gradient checkpointing), if wanted.

        Raises:
            StepFailed: the model cannot.
        """
        if not wanted:
            yield
            return
        if not self.base.supports_gradient_checkpointing:
            raise StepFailed(
                f"memory does not hold a training row of {self.name}, which cannot recompute its activations; lower "
                "lora.max_tokens or lora.rank"
            )
        self.base.gradient_checkpointing_enable({"use_reentrant": False})
        try:
            yield
        finally:
            self.base.gradient_checkpointing_disable()
