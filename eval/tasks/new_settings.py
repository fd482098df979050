"""What a run that began before some settings existed is told: which ones, and what holds for it now."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from agent.config.task import TaskConfig
from eval.tasks.yaml_file import read_yaml


def new_settings(file: Path, config: TaskConfig) -> tuple[str, ...]:
    """A sentence that names the settings a run's task.yaml does not hold, with their defaults; none where it holds all.

    A run folder's task.yaml is written with every setting of its time.
    """
    lacking = sorted(_lacking(read_yaml(file).values, config.model_dump(mode="json", by_alias=True)))
    if not lacking:
        return ()
    return (
        f"{file} was written before these settings existed, so its later rounds are played with their defaults: "
        f"{', '.join(lacking)}. Set them there to go on otherwise.",
    )


def _lacking(given: Mapping[str, object], full: Mapping[str, object], place: str = "") -> Iterator[str]:
    for key, value in full.items():
        inner = given.get(key)
        if key not in given:
            if value not in (None, [], {}, ""):
                yield f"{place}{key}: {value}"
        elif isinstance(value, dict) and isinstance(inner, dict):
            yield from _lacking(inner, value, f"{place}{key}.")
