"""The adapter that a run starts from: taken into the run folder, where it is one of the run's own."""

import json
import shutil
from pathlib import Path

from agent.config.lora import Lora
from agent.errors import BadInput
from agent.records.base import digest
from agent.records.training import Training, weights_digest, write_training
from graphs.services.run import RunServices


def take_up_start(services: RunServices) -> str | None:
    """Copy the task's starting adapter into the run, unless it is there; returns its id. None: the task names none.

    Its id is a digest of its files and its base. So a damaged copy is made again only from just that adapter.

    Raises:
        BadInput: it is no longer there, or can no longer be used.
    """
    from graphs.lost_adapters import is_whole
    from tools.adapters.starting import check_start

    config, baseline = services.spec.config, services.folder.baseline()
    if config.start is None or config.start.adapter is None:
        return None
    known = baseline.start.adapter if baseline and baseline.start else None
    if known and is_whole(known, services):
        return known
    source = Path(config.start.adapter)
    said = check_start(source, config.model, config.lora, config.shard)
    adapter = digest([config.base, _settings(source), weights_digest(source)])
    if known not in (None, adapter):
        raise BadInput(
            f"the run's copy of its starting adapter is damaged, and {source} is another one by now: put that back, or "
            "start a new run"
        )
    if not is_whole(adapter, services):
        _copy(source, services.folder.adapter_folder(adapter), config.model, config.lora)
    services.note(f"Adapter {adapter} is copied again from {source}." if known else said)
    return adapter


def _copy(source: Path, folder: Path, model: str, lora: Lora) -> None:
    """Under another name, renamed when complete: no kill leaves half an adapter."""
    partial = folder.with_name(f"{folder.name}.partial")
    for stale in (partial, folder):
        shutil.rmtree(stale, ignore_errors=True)
    partial.mkdir(parents=True)
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copyfile(source / file, partial / file)
    settings = _settings(source)
    own = lora.model_copy(
        update={"rank": settings["r"], "alpha": settings.get("lora_alpha", settings["r"]),
                "rslora": bool(settings.get("use_rslora")), "dora": bool(settings.get("use_dora"))}
    )  # fmt: skip
    training = Training(
        model=model, parent=None, data="", settings=own, rows="of the start", row_count=0, left_out=0, epochs=0,
        learning_rate=lora.learning_rate, rank=own.rank, seed=0,
    )  # fmt: skip
    write_training(training, partial)
    partial.rename(folder)


def _settings(source: Path) -> dict[str, object]:
    """What peft has written beside the weights, without the name of the base, which differs from machine to machine."""
    settings: dict[str, object] = json.loads((source / "adapter_config.json").read_text(encoding="utf-8"))
    return {name: value for name, value in settings.items() if name not in ("base_model_name_or_path", "revision")}
