"""The base model: loaded once a process, and lent to one run at a time.

A run's own adapters, counters and progress are in `LentModel`. A process keeps one model: another one takes its place.
"""

import gc
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING

from agent.config.task import TaskConfig
from agent.protocols import Progress, Settled
from agent.records.base import digest
from agent.records.examples import Example, Prompt
from agent.records.rounds import Spend
from graphs.services.garbage_collection import without_garbage_collection

if TYPE_CHECKING:
    from tools.model.backbone import Backbone


class Services:
    """The loaded model of one configuration, shared by all runs of this process that have the same one."""

    def __init__(self, key: str, backbone: "Backbone") -> None:
        self.key = key
        self.backbone = backbone
        self.remark = ""
        self.checked: set[str] = set()  # LoRA settings that the model is known to take
        self.borrower: LentModel | None = None  # whose call is under way
        self.last: Callable[[], LentModel | None] = lambda: None  # whose adapters are attached


_lock = RLock()  # held for as long as a call of the model takes
_services: list[Services] = []  # one at most


def forget() -> None:
    """Free the loaded model, once no call of it is under way."""
    with _lock:
        if _services:
            _services.clear()
            gc.collect()  # a model's modules refer to each other
            import torch

            torch.cuda.empty_cache()


class LentModel:
    """The shared model as one run uses it. Satisfies `agent.protocols.LanguageModel`; safe for several threads.

    Adapters are found in the run's own folder: runs whose budgets cut a training off have other weights under one id.

    Args:
        config: decides which model it is.
        locate: the folder of an adapter of this run, from its id.
        progress: told of loading and answering.
        remark: told in a sentence what is odd about the model, once it is there.
    """

    def __init__(
        self, config: TaskConfig, locate: Callable[[str], Path], progress: Progress, remark: Callable[[str], None]
    ) -> None:
        self._config = config
        self._key = _model_key(config)
        self._locate = locate
        self._progress = progress
        self._remark = remark
        self._ready = False
        self._spent = Spend()  # in calls that have ended
        self._began: Spend | None = None  # a reading of the model's counters; None between calls

    @contextmanager
    def lend(self) -> Iterator["Backbone"]:
        """The loaded model, for this run alone until the block ends; others wait.

        Raises:
            BadInput: the model cannot be loaded, or does not take the run's LoRA settings.
        """
        with _lock:
            services = self._loaded()
            outer = services.borrower
            if outer is self:  # a call within a call
                yield services.backbone
                return
            assert outer is None, "the lock lends to one run at a time"
            services.borrower = self
            try:
                if services.last() is not self:
                    services.backbone.detach_all()
                    services.last = weakref.ref(self)
                if not self._ready:
                    self._check(services)
                self._began = _counters(services.backbone)
                yield services.backbone
            finally:
                self._spent, self._began = self.spent, None
                services.borrower = None

    @property
    def spent(self) -> Spend:
        """Tokens that this run has trained, generated and read with the model, the call under way included."""
        if self._began is None:
            return self._spent
        return self._spent + (_counters(_services[0].backbone) - self._began)

    @property
    def generated_tokens(self) -> int:
        return self.spent.generated_tokens

    @property
    def read_tokens(self) -> int:
        return self.spent.read_tokens

    def generate(
        self,
        prompt: Prompt,
        examples: Sequence[Example],
        *,
        adapter: str | None,
        max_new_tokens: int,
        settled: Settled | None = None,
    ) -> list[str | None]:
        """As `LanguageModel.generate`."""
        with self.lend() as backbone:
            return backbone.generate(prompt, examples, adapter=adapter, max_new_tokens=max_new_tokens, settled=settled)

    def nll(
        self,
        prompt: Prompt,
        examples: Sequence[Example],
        completions: Sequence[tuple[str, str]],
        *,
        adapter: str | None,
    ) -> list[float | None]:
        """As `LanguageModel.nll`."""
        with self.lend() as backbone:
            return backbone.nll(prompt, examples, completions, adapter=adapter)

    def _loaded(self) -> Services:
        """The model of this configuration. One of another is freed first."""
        if not _services or _services[0].key != self._key:
            forget()
            _services.append(self._load())
        return _services[0]

    def _load(self) -> Services:
        from agent.config.lora_options import check_options

        config = self._config
        check_options(config.lora)  # of a run that was laid out before this was checked
        self._progress("loading the model", 0, 1, config.model)
        with without_garbage_collection():
            from tools.model.backbone import Backbone
            from tools.model.generation_config import remark
            from tools.model.loading import load_model

            base, tokenizer = load_model(
                config.model, device=config.device, dtype=config.dtype, qlora=config.lora.qlora,
                chat_template_kwargs=config.chat_template_kwargs, progress=self._progress,
            )  # fmt: skip
        self._progress("loading the model", 1, 1, config.model)
        backbone = Backbone(
            base,
            tokenizer,
            name=config.model,
            locate=_locate,
            chat_template_kwargs=config.chat_template_kwargs,
            batch_size=config.generation.batch_size,
            progress=_progress,
        )
        services = Services(self._key, backbone)
        services.remark = remark(base) or ""
        return services

    def _check(self, services: Services) -> None:
        """Once a run: whether the model takes its LoRA settings."""
        from tools.training.lora_config import try_settings

        settings = self._config.lora.model_dump_json()
        if settings not in services.checked:
            try_settings(services.backbone, self._config.lora)
            services.checked.add(settings)
        if services.remark:
            self._remark(services.remark)
        self._ready = True


def _locate(adapter: str) -> Path:
    """In the folder of the run that the model is lent to."""
    return _borrower()._locate(adapter)


def _progress(what: str, done: int, total: int, note: str = "") -> None:
    _borrower()._progress(what, done, total, note)


def _borrower() -> LentModel:
    borrower = _services[0].borrower
    assert borrower, "nobody calls the model but who has borrowed it"
    return borrower


def _counters(backbone: "Backbone") -> Spend:
    return Spend(
        train_tokens=backbone.trained_tokens,
        generated_tokens=backbone.generated_tokens,
        read_tokens=backbone.read_tokens,
    )


def _model_key(config: TaskConfig) -> str:
    """Of all that decides which weights are loaded and how they compute; a folder's files count with their times."""
    folder = Path(config.model).expanduser()
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    stamps = [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    return digest([*config.base, config.generation.batch_size, stamps])
