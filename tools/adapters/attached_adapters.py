"""The adapters attached to a base model: read by id, switched, made and dropped, without loading the base again."""

import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers

from agent.errors import BadInput
from tools.adapters.files import check_base_weights, check_files, strip, write
from tools.model.composite import text_only

ATTACHED = 4  # adapters kept in memory; an older one is read from disk again when it is wanted


class AttachedAdapters:
    """Adapters of one base model, each known by its id and its folder; at most `ATTACHED` are in memory.

    Args:
        base: the model, in evaluation mode.
        name: what error messages call it.

    Attributes:
        detached: how often an adapter was dropped. What was computed with one before may be of other weights.
    """

    def __init__(self, base: transformers.PreTrainedModel, name: str) -> None:
        self.detached = 0
        self._base = base
        self._name = name
        self._peft: Any = None
        self._attached: OrderedDict[str, Path] = OrderedDict()  # the folder of each, last used last
        self._active: str | None = None  # the one that every layer was last told to use; None: layers may differ

    @property
    def model(self) -> Any:
        """The base, inside peft's wrapper once an adapter has been attached."""
        return self._peft or self._base

    @contextmanager
    def using(self, adapter: str | None, folder: Path | None) -> Iterator[transformers.PreTrainedModel]:
        """The model with this adapter active, or the bare base for None.

        Raises:
            BadInput: there are no weights in its folder, or they do not fit the base.
        """
        if adapter is None:
            if self._peft is None:
                yield self._base
            else:
                with self._peft.disable_adapter():
                    yield self._peft
            return
        assert folder is not None, "an adapter has a folder"
        self.attach(adapter, folder)
        yield self._peft

    def attach(self, adapter: str, folder: Path, source: Path | None = None, trainable: bool = False) -> None:
        """Load an adapter's safetensors, if it is not attached from this folder already, and make it active.

        Args:
            folder: the adapter's own.
            source: the folder of the adapter whose weights it continues; None: its own.

        Raises:
            BadInput: there are no weights in the folder, they do not fit the base, or would change it.
        """
        if self._attached.get(adapter) != folder:
            self.detach(adapter)  # one of this id, of another run
            source = source or folder
            if not (source / "adapter_model.safetensors").is_file():
                raise BadInput(f"no adapter '{source.name}' at {source}")
            kind = check_files(source)
            check_base_weights(source, self._base)
            if self._peft is not None and kind != self._peft.peft_type:  # peft has one kind at a time
                self._detach_all()
            try:
                self._read(source, adapter, trainable)
            except (ValueError, RuntimeError, LookupError) as error:
                raise BadInput(f"the adapter in {source} does not fit {self._name}: was it made for it?") from error
        self._activate(adapter, folder)

    def create(self, adapter: str, folder: Path, config: Any) -> None:
        """Attach a new adapter made from a peft config, and make it active.

        Args:
            folder: where it will be saved.

        Raises:
            Exception: whatever peft raises for a config that the model cannot have.
        """
        from peft import get_peft_model

        config = text_only(self._base, config)
        with self._whole_or_none():
            if self._peft is None:
                self._peft = get_peft_model(self._base, config, adapter_name=adapter)
            else:
                self._peft.add_adapter(adapter, config)
        self._activate(adapter, folder)

    def detach(self, adapter: str) -> None:
        """Drop an adapter, if it is attached; its files stay."""
        if self._attached.pop(adapter, None) is None:
            return
        self.detached += 1
        self._active = None  # each layer goes over to another adapter, not all to the same
        if self._attached:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Adapter .* was active which is now deleted")
                self._peft.delete_adapter(adapter)  # another one is activated before the next answer
        else:  # peft's wrapper cannot stand without an adapter
            self._detach_all()

    def rank(self, adapter: str) -> int:
        """Rank of an attached adapter; one that continues another has the other's."""
        return int(self._peft.peft_config[adapter].r)

    def save(self, adapter: str, folder: Path) -> None:
        """Write an attached adapter as safetensors, with peft's adapter_config.json, straight into `folder`."""
        write(self._peft, adapter, folder)

    def _read(self, source: Path, adapter: str, trainable: bool) -> None:
        from peft import PeftModel

        with self._whole_or_none():
            if self._peft is None:
                self._peft = PeftModel.from_pretrained(self._base, str(source), adapter, is_trainable=trainable)
            else:
                self._peft.load_adapter(str(source), adapter, is_trainable=trainable)

    @contextmanager
    def _whole_or_none(self) -> Iterator[None]:
        """An adapter that peft fails to make in full is dropped, with all others; those on disk are read again."""
        try:
            yield
        except BaseException:
            self._detach_all()
            raise

    def _detach_all(self) -> None:
        strip(self._base)
        self._peft = None
        self._active = None
        self._attached.clear()
        self.detached += 1

    def _activate(self, adapter: str, folder: Path) -> None:
        from tools.adapters.fast_lora import use_fast_lora

        if adapter not in self._attached:  # its layers are new
            use_fast_lora(self._peft)
        if adapter not in self._attached or adapter != self._active:  # asking every layer takes milliseconds
            self._peft.set_adapter(adapter)
            self._active = adapter
        self._attached[adapter] = folder
        self._attached.move_to_end(adapter)
        while len(self._attached) > ATTACHED:
            self.detach(next(iter(self._attached)))
