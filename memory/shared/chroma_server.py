"""A Chroma server that several runs and machines use at once: `chroma run --path FOLDER`.

Every write is an upsert under an id that the entry determines, so a request that may have been lost is sent again.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import httpx

from agent.errors import NesyLoraError
from memory.chroma import COSINE, SHELVES, Embed, Shelf
from memory.shared.origin import note_filled, origin_of
from memory.shared.waiting import told

if TYPE_CHECKING:
    from chromadb import Collection
    from chromadb.api import ClientAPI

T = TypeVar("T")

PATIENCE = 60.0  # seconds for a request, with all that it is sent again
WAITS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 28.0)  # seconds before it is sent again, while the server is down


class ChromaServer:
    """The server while it is used: `with ChromaServer.open(address, root) as it`. Satisfies `memory.chroma.Shelves`.

    Args:
        root: the folder of the runs whose entries this process writes.
    """

    def __init__(self, address: str, root: Path, collections: "Mapping[str, Collection]") -> None:
        self._address, self._root, self._collections = address, root, collections
        self._origin = origin_of(root)

    @classmethod
    @contextmanager
    def open(cls, address: str, root: Path) -> Iterator["ChromaServer"]:
        """The server at this address.

        Raises:
            NesyLoraError: it does not answer for a minute, here and whenever it is used.
        """
        client, collections = patiently(address, lambda: _connected(address))
        try:
            yield cls(address, root, collections)
        finally:
            client.close()  # type: ignore[attr-defined]

    def shelf(self, name: str, embed: Embed) -> Shelf:
        """One of SHELVES. Ids of entries begin with the name of their runs' folder."""

        def call(do: Callable[[], T]) -> T:
            return patiently(self._address, do)

        return Shelf(self._collections[name], embed, call, prefix=f"{self._origin.name}/")

    @property
    def rebuilt(self) -> bool:
        """Whether the server may lack entries of these runs: it is new to them, or its collections were lost."""
        return self._origin.collections != self._ids

    @contextmanager
    def filling(self) -> Iterator[None]:
        """Around the filling of all shelves: one that is cut off counts as not begun."""
        yield
        note_filled(self._root, self._address, self._ids)

    @property
    def _ids(self) -> tuple[str, ...]:
        return tuple(str(self._collections[name].id) for name in SHELVES)


def patiently(address: str, do: Callable[[], T]) -> T:
    """What a request returns; sent again while the server is down. Raises NesyLoraError after a minute in all."""
    with told(f"the Chroma server at {address} (up to a minute)"):
        return _patiently(address, do)


def _patiently(address: str, do: Callable[[], T]) -> T:
    from chromadb.errors import ChromaError

    from memory.shared.chroma_client import UNTIL

    until = time.monotonic() + PATIENCE
    UNTIL.set(until)
    for wait in (*WAITS, None):
        try:
            return do()
        except httpx.TransportError as error:
            if wait is None or time.monotonic() + wait > until:
                raise NesyLoraError(
                    f"The Chroma server at {address} does not answer ({error or type(error).__name__}). Start it "
                    "(chroma run --path FOLDER), or set memory.chroma to another; then resume."
                ) from error
            time.sleep(wait)
        except (ChromaError, httpx.HTTPStatusError) as error:
            raise NesyLoraError(
                f"The Chroma server at {address} refuses a request: {error}. Mend that, then resume."
            ) from error
    raise AssertionError("the last try returns or raises")


def _connected(address: str) -> "tuple[ClientAPI, dict[str, Collection]]":
    """A client and its collections. Raises as `TimedClient`."""
    from memory.shared.chroma_client import TimedClient

    at = urlsplit(address)
    secure = at.scheme == "https"
    try:
        client = TimedClient(at.hostname or "", at.port or (443 if secure else 8000), secure)
    except ValueError as error:  # no JSON: another server
        raise httpx.ConnectError(str(error)) from error
    return client, {
        name: client.get_or_create_collection(name, embedding_function=None, configuration=COSINE) for name in SHELVES
    }
