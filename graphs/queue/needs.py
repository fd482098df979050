"""What a task needs of this machine, found out while somebody is there to mend it, and not at the task's turn."""

import os
import re
import shlex
import shutil
import socket
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from urllib.parse import urlsplit

from agent.config.notify import Notify
from agent.config.task import TaskConfig
from agent.errors import BadInput

ANSWERS = 2.0  # seconds in which a server takes a connection, where it is there
PORTS = {"http": 80, "https": 443}


def faults(config: TaskConfig) -> list[str]:
    """Why the task cannot be worked on here; a sentence each. Loads torch only where a GPU is asked for."""
    return [
        *notify_faults(config.notify),
        *_tracker(config),
        *_packages(config),
        *_devices(config),
        *_key(config),
        *_engine(config),
    ]


def remarks(config: TaskConfig) -> list[str]:
    """What would bring a task less than it asks for, but may still be mended until its turn; a sentence each."""
    found = [f"{name} is not set, so the LLM cannot be asked" for name in _unset_keys(config)]
    servers = {config.llm.of(role).base_url: "llm.base_url" for role in config.roles} if config.llm else {}
    servers |= {config.memory.chroma: "memory.chroma", config.generation.url: "generation.url"}
    for address, setting in servers.items():
        if address and (why := _unreachable(address)):
            found.append(f"{setting}: nothing answers at {address} now ({why})")
    return found


def notify_faults(notify: Notify) -> list[str]:
    """Why nobody could be told; a sentence each."""
    return [fault for fault in (_command(notify.command), _url(notify.url)) if fault]


def _command(command: str | None) -> str:
    if not command:
        return ""
    try:
        words = shlex.split(command)
    except ValueError as error:  # quotes that do not end
        return f"notify.command: {command!r} cannot be read: {error}"
    program = os.path.expandvars(words[0]) if words else ""
    return "" if shutil.which(program) else f"notify.command: there is no program {program!r} that can be started"


def _url(url: str | None) -> str:
    """Never with the address, which is often a secret."""
    if not url:
        return ""
    address = os.path.expandvars(url)
    if left := re.findall(r"\$\{?(\w+)\}?", address):
        return f"notify.url: the environment variable {left[0]} is not set"
    if not re.match(r"https?://[^\s/]", address):
        return "notify.url is no address: it begins with http:// or https://"
    return ""


def _tracker(config: TaskConfig) -> list[str]:
    if config.track is None or find_spec(config.track):
        return []
    return [f"track: {config.track} is not installed. Run: pip install {config.track}"]


def _packages(config: TaskConfig) -> list[str]:
    """Those for Postgres, imported, since psycopg may lack libpq; and the address of the checkpoints."""
    found = []
    needs = {"checkpoints": ("psycopg", "langgraph.checkpoint.postgres"), "memory.postgres": ("psycopg",)}
    asked = {"checkpoints": config.checkpoints, "memory.postgres": config.memory.postgres}
    for setting, modules in needs.items():
        try:
            for module in modules if asked[setting] else ():
                import_module(module)
        except ImportError as error:
            found.append(f"{setting}: more packages are needed ({error}). Run: pip install 'nesylora[postgres]'")
    if config.checkpoints and not found:
        from graphs.postgres import expanded
        from memory.shared.connection import Place

        try:
            Place.of(expanded(config.checkpoints), "checkpoints")
        except BadInput as error:
            found.append(str(error))
    return found


def _devices(config: TaskConfig) -> list[str]:
    if config.processes == 1 and config.device in ("auto", "cpu") and not config.lora.qlora:
        return []
    from graphs.services.levers import check_trainer
    from tools.model.loading import check_device, four_bit, pick_dtype

    found = []
    try:
        check_device(config.device)
        check_trainer(config)
        if config.lora.qlora:
            four_bit(pick_dtype(config.device))
    except BadInput as error:
        found.append(str(error))
    return found


def _unset_keys(config: TaskConfig) -> Iterator[str]:
    """Variables of keys that OpenAI's own server would be asked with."""
    asked = [config.llm.of(role) for role in config.roles] if config.llm else []
    names = (settings.key_variable for settings in asked if settings.base_url is None)
    return (name for name in dict.fromkeys(names) if not os.environ.get(name))


def _key(config: TaskConfig) -> list[str]:
    """Where the run would end without an LLM: else it goes on by the rules."""
    assert config.llm or not config.roles, "the configuration demands an llm section wherever one is used"
    if config.llm is None or not ("judge" in config.roles or config.llm.on_refusal == "stop"):
        return []
    return [
        f"llm: the environment variable {name} is not set, and the run cannot go on without it"
        for name in _unset_keys(config)
    ]


def _engine(config: TaskConfig) -> list[str]:
    name = config.generation.key_variable
    if not name or os.environ.get(name):
        return []
    return [f"generation.key_variable: the environment variable {name} is not set"]


def _unreachable(address: str) -> str:
    """Why no connection is taken there now; empty where one is."""
    parts = urlsplit(address)
    try:
        socket.create_connection((parts.hostname or "", parts.port or PORTS[parts.scheme]), ANSWERS).close()
    except OSError as error:
        return error.strerror or str(error) or type(error).__name__
    return ""
