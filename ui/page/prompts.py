"""The prompt memory of all runs, searched by meaning."""

import time
from functools import cache
from threading import Lock
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from agent.errors import NesyLoraError
from graphs.services.run_memory import open_memory
from memory.embedder import MiniLm
from memory.prompts import Recalled
from memory.shared.origin import server_of
from ui.page.place import Here, Place
from ui.page.rendering import render

router = APIRouter(tags=["pages"])
MOST = 20
WAIT = 10.0  # seconds; a run has the memory open for moments
_one_at_a_time = Lock()  # two searches of this process would take each other for another one


class Found(NamedTuple):
    """What a search found, and how long it took; or why there is nothing."""

    entries: list[Recalled]
    seconds: float
    known: int = 0
    fault: str = ""


@router.get("/prompts", summary="Search the prompts of all runs by meaning", response_class=HTMLResponse)
def show_prompts(
    place: Here, about: Annotated[str, Query(max_length=300)] = "", kept: bool = False, part: bool = False
) -> HTMLResponse:
    """The page, with what was found; `part`: only that. `kept`: only prompts that a run kept."""
    found = search(place, about, kept) if about.strip() else None
    template = "found.html.j2" if part else "prompts.html.j2"
    return render(template, about=about, kept=kept, found=found)


def search(place: Place, about: str, kept: bool) -> Found:
    """The entries nearest in meaning. The first search loads the embedder, which takes some seconds."""
    began = time.monotonic()
    try:
        with (
            _one_at_a_time,
            open_memory(place.root, _embedder(), lambda _: None, WAIT, server_of(place.root)) as memory,
        ):
            return Found(memory.search(about, MOST, kept=kept), time.monotonic() - began, memory.count())
    except NesyLoraError as error:
        return Found([], time.monotonic() - began, fault=str(error))


@cache
def _embedder() -> MiniLm:
    return MiniLm()
