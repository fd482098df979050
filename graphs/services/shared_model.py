"""The base model, loaded once a process: every run of the process that has the same one gets a view of it."""

import gc
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from agent.config.task import TaskConfig
from agent.protocols import Progress
from agent.records.base import digest
from graphs.services.garbage_collection import without_garbage_collection

if TYPE_CHECKING:
    from tools.model.backbone import Backbone


class Services:
    """What a process keeps for its runs: the loaded model of one configuration, and what is known of it.

    Attributes:
        key: of all that decides which weights are loaded and how they compute.
        lora_settings: those that the model is known to take.
    """

    def __init__(self, key: str, backbone: "Backbone") -> None:
        self.key = key
        self.backbone = backbone
        self.lora_settings: set[str] = set()


_loading = Lock()
_kept: list[Services] = []  # one at most


def services_for(config: TaskConfig, progress: Progress) -> Services:
    """The loaded model that a task names. Runs get views of its backbone by `Backbone.of`, and never use it itself.

    One model is kept. It is let go of before another one is loaded; runs that still have a view of it keep it until
    they end. Of threads that ask at once, one loads.

    Raises:
        BadInput: the model cannot be loaded, or its LoRA settings are refused before.
    """
    with _loading:
        key = _key(config)
        if not _kept or _kept[0].key != key:
            _forget()
            _kept.append(Services(key, _load(config, progress)))
        return _kept[0]


def forget() -> None:
    """Let go of the loaded model."""
    with _loading:
        _forget()


def _forget() -> None:
    if _kept:
        _kept.clear()
        gc.collect()  # a model's modules refer to each other
        import torch

        torch.cuda.empty_cache()


def _load(config: TaskConfig, progress: Progress) -> "Backbone":
    from agent.config.lora_options import check_options

    check_options(config.lora)  # of a run that was laid out before this was checked
    progress("loading the model", 0, 1, config.model)
    with without_garbage_collection():
        from tools.model.backbone import Backbone
        from tools.model.loading import load_model

        base, tokenizer = load_model(
            config.model, device=config.device, dtype=config.dtype, qlora=config.lora.qlora,
            chat_template_kwargs=config.chat_template_kwargs, progress=progress,
        )  # fmt: skip
    progress("loading the model", 1, 1, config.model)
    return Backbone(
        base,
        tokenizer,
        name=config.model,
        locate=Path,
        chat_template_kwargs=config.chat_template_kwargs,
        batch_size=config.generation.batch_size,
    )


def _key(config: TaskConfig) -> str:
    """A model folder's files count with their sizes and times: it may have been written anew."""
    folder = Path(config.model).expanduser()
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    stamps = [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    return digest([*config.base, config.generation.batch_size, stamps])
