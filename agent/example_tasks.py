"""The example tasks, beside the packages: a folder `tasks` of the user's own is never taken for ours."""

from pathlib import Path


def shipped(name: str) -> Path:
    """The folder of our tasks that is called so, such as `valley` or `decide`."""
    return Path(__file__).parents[1] / "tasks" / name
