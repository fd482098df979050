"""The last checkpoint of a training: with it a process goes on where a kill or a shutdown has cut another off."""

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from agent.errors import is_disk_full
from agent.records.base import Record
from agent.records.training import Step

FORMAT = 1  # of the file, and of the order in which a training takes rows: after a change none is gone on from


class Reached(Record):
    """How far a training is. Tokens are forward tokens."""

    steps: tuple[Step, ...] = ()
    tokens: int = Field(0, description="that these steps took")
    seconds: float = Field(0.0, description="of all processes that led here")
    first_try: str = Field("", description="why the try at the full rate was given up; empty: this is that try")
    first_tokens: int = Field(0, description="that a first try took")

    @property
    def all_tokens(self) -> int:
        return self.first_tokens + self.tokens

    def at(self, steps: Sequence[Step], tokens: int, seconds: float) -> "Reached":
        """Further on in the same try."""
        return self.model_copy(update={"steps": tuple(steps), "tokens": tokens, "seconds": seconds})


class Start(NamedTuple):
    """What a training begins with: nothing, or what a checkpoint holds."""

    reached: Reached = Reached()
    tensors: Mapping[str, torch.Tensor] = MappingProxyType({})


class Checkpoint:
    """One file beside the adapter's folder, replaced as a whole, so that a kill leaves the one before.

    Args:
        folder: the adapter's.
        job: digest of all that decides what the training comes to. A checkpoint of another job is not gone on from.
        every: seconds between two; 0: none is written.
        note: takes a sentence for the user.
    """

    def __init__(self, folder: Path, job: str, every: float, note: Callable[[str], None]) -> None:
        self._file = folder.with_name(f"{folder.name}.training")
        self._draft = folder.with_name(f"{folder.name}.training.partial")
        self._job, self._every, self._note = job, every, note
        self._began = self._last = time.monotonic()
        self._earlier = 0.0

    @property
    def seconds(self) -> float:
        """What the training has taken so far, in the processes before this one, too."""
        return self._earlier + time.monotonic() - self._began

    def is_due(self) -> bool:
        """Whether the time for another one has come."""
        return 0 < self._every <= time.monotonic() - self._last

    def read(self) -> Start | None:
        """What was reached; None where there is no checkpoint, or none that can be used, which the user is told."""
        if not self._file.exists():
            return None
        try:
            with safe_open(self._file, "pt") as file:
                about = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
            if about["digest"] != _digest(about["job"], about["reached"], tensors):
                raise ValueError("its digest is another")
            reached = Reached.model_validate_json(about["reached"])
        except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
            reason = f"{self._file.name} is damaged: {str(error).splitlines()[0]}"
        else:
            if about["job"] == self._job:
                self._earlier = reached.seconds
                return Start(reached, tensors)
            reason = f"{self._file.name} is of other rows, settings, processes or another device"
        self._note(f"A training that was cut off begins again, and its checkpoint is removed ({reason}).")
        return None

    def write(self, reached: Reached, tensors: dict[str, torch.Tensor]) -> None:
        """Replace what was written before. Where that fails, the training goes on without new checkpoints."""
        about = {"job": self._job, "reached": reached.model_dump_json()}
        about["digest"] = _digest(about["job"], about["reached"], tensors)
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, self._draft, about)
            with self._draft.open("rb+") as draft:
                os.fsync(draft.fileno())
            os.replace(self._draft, self._file)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                self._draft.unlink(missing_ok=True)
            self._every = 0
            why = "The disk is full" if is_disk_full(error) else f"No checkpoint can be written ({error})"
            self._note(f"{why}: the training goes on without new checkpoints.")
        self._last = time.monotonic()

    def discard(self) -> None:
        """The training is over, or begins again."""
        self._earlier = 0.0
        for file in (self._file, self._draft):
            file.unlink(missing_ok=True)


def _digest(job: str, reached: str, tensors: dict[str, torch.Tensor]) -> str:
    """Of all that a checkpoint holds: safetensors itself notices no changed byte in a tensor."""
    found = hashlib.sha256(f"{job} {reached}".encode())
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()
