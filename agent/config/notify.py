"""`notify:` and `track:` in a task.yaml: who is told when a run ends or stops, and where its numbers are logged."""

from typing import Literal, get_args

from pydantic import Field

from agent.config.base import Settings

TrackerName = Literal["trackio", "mlflow", "wandb"]
TRACKERS: tuple[str, ...] = get_args(TrackerName)


class Notify(Settings):
    """Who is told, in one JSON record, when a run ends or an error stops it. `$NAME` is taken from the environment."""

    command: str | None = Field(
        None,
        description="is started without a shell; gets the record on standard input, and the sentence for {text}",
    )
    url: str | None = Field(None, description="the record is posted there")

    @classmethod
    def of(cls, named: str) -> "Notify":
        """What `--notify` names: an address, or else a command."""
        if named.startswith(("http://", "https://")):
            return cls(url=named)
        return cls(command=named or None)
