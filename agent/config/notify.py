"""`notify:` in a task.yaml: who is told when a run ends, or stops."""

from pydantic import Field

from agent.config.base import Settings


class Notify(Settings):
    """One JSON record goes to each that is named. `$NAME` in either is replaced by the environment's value."""

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
