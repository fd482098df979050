"""run.json: where a run comes from, and which version began it."""

from importlib.metadata import PackageNotFoundError, version

from pydantic import ConfigDict, Field

from agent.records.base import Record


class About(Record):
    """run.json: where a run comes from. `source` is the absolute folder of its task.yaml, `digest` that of its data.

    Unknown fields are ignored, so that a run of a later version can be recognised by its `format`.
    """

    model_config = ConfigDict(extra="ignore")

    task: str
    source: str
    digest: str
    version: str
    created: str
    format: int = Field(0, description="agent.records.base.FORMAT of the version that began the run")
    extensions: dict[str, str] = Field(
        {}, description="where each registered scorer, editor and policy comes from; see agent.extensions.used_by"
    )
    keep: dict[str, str] = Field(
        {}, description="the digest of each task that is to be kept, by the path that names it"
    )


def own_version() -> str:
    """The version of the installed package."""
    try:
        return version("nesylora")
    except PackageNotFoundError:  # run from a checkout
        return "unknown"
