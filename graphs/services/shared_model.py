"""The base model: loaded once a process, and shared by its runs.

A process keeps one model for runs to come; another one takes its place. Adapters, progress and charges are each run's
own: see `tools.adapters.adapted_model`.
"""

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from agent.config.task import TaskConfig
from agent.protocols import Charge, Progress
from agent.records.base import digest
from graphs.services.garbage_collection import without_garbage_collection

if TYPE_CHECKING:
    from memory.embedder import MiniLm
    from tools.model.backbone import Backbone


@dataclass
class LoadedModel:
    """The model of one configuration, the remark about it (may be empty), and the LoRA settings it is known to take."""

    key: str
    backbone: "Backbone"
    remark: str
    checked: set[str] = field(default_factory=set)


_lock = Lock()  # two runs that ask at once load it once
_loaded: list[LoadedModel] = []  # one at most


def forget() -> None:
    """Keep no model: it is freed once no run has it any more."""
    if _loaded:
        _loaded.clear()
        gc.collect()  # a model's modules refer to each other
        import torch

        torch.cuda.empty_cache()


def shared_backbone(
    config: TaskConfig,
    locate: Callable[[str], Path],
    progress: Progress,
    charge: Charge,
    remark: Callable[[str], None],
) -> "Backbone":
    """One run's view of the model, which is loaded unless this process has it already.

    Args:
        config: decides which model it is.
        locate: the folder of an adapter of this run, from its id.
        progress: shows how far loading and answering are.
        charge: takes what calls use up.
        remark: takes a sentence on what is odd about the model, if anything is.

    Raises:
        BadInput: the model cannot be loaded, does not take the run's LoRA settings, or is not to be had here.
    """
    from agent.config.generation import require_weights
    from agent.config.lora_options import check_options

    require_weights(config, "What is asked for")
    check_options(config.lora)  # of a run that was laid out before this was checked
    key = _model_key(config)
    with _lock:
        if not _loaded or _loaded[0].key != key:
            forget()
            _loaded.append(_load(config, key, progress))
        loaded = _loaded[0]
    view = loaded.backbone.view_for(locate, progress, charge)
    settings = config.lora.model_dump_json()
    if settings not in loaded.checked:
        from tools.training.lora_config import try_settings

        with view.lock:
            try_settings(view, config.lora)
        loaded.checked.add(settings)
    if loaded.remark:
        remark(loaded.remark)
    return view


@cache
def shared_embedder() -> "MiniLm":
    """The embedding model of the prompt memory and the classifier, loaded at its first call."""
    from memory.embedder import MiniLm

    return MiniLm()


def _load(config: TaskConfig, key: str, progress: Progress) -> LoadedModel:
    progress("loading the model", 0, 1, config.model)
    with without_garbage_collection():
        from tools.model.backbone import Backbone
        from tools.model.generation_config import remark
        from tools.model.loading import load_model

        base, tokenizer = load_model(
            config.model, device=config.device, dtype=config.dtype, qlora=config.lora.qlora, spread=config.shard,
            chat_template_kwargs=config.chat_template_kwargs, progress=progress,
        )  # fmt: skip
        backbone = Backbone(
            base,
            tokenizer,
            name=config.model,
            locate=_nowhere,
            chat_template_kwargs=config.chat_template_kwargs,
            batch_size=config.generation.batch_size,
        )
    progress("loading the model", 1, 1, config.model)
    return LoadedModel(key, backbone, remark(base) or "")


def _nowhere(adapter: str) -> Path:
    raise AssertionError(f"adapter {adapter} was asked of no run's view of the model")


def _model_key(config: TaskConfig) -> str:
    """Of all that decides which weights are loaded and how they compute; a folder's files count with their times."""
    folder = Path(config.model).expanduser()
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    stamps = [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    spread = ["spread"] if config.shard else []
    return digest([*config.base, *spread, config.generation.batch_size, stamps])
