"""A task of an uploaded file: looked at as data, proposed, changed, tried on five rows, started.

The file and its task lie in `uploads/` beside the runs, each in a folder of its own, whose name is the draft's. They go
a week later, unless a run was started of them, which reads its rows there.
"""

import hashlib
import re
import secrets
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, UploadFile
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

from agent.errors import BadInput
from eval.drafts.records import DraftOptions, TaskDraft
from graphs.drafting import TRIED, draft_task, try_rows
from memory.run.folder import runs
from ui.page.place import Here, Place
from ui.page.rendering import render
from ui.page.start import begin

router = APIRouter(prefix="/drafts", tags=["start"])
MOST = 32 * 1024 * 1024  # bytes of a file
KINDS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
KEPT = 7 * 24 * 3600.0  # seconds that an upload is kept which no run was started of
SHOWN = 5  # rows that are shown as they were read


class Settled(BaseModel):
    """What the user would have otherwise than proposed; an empty field leaves the proposal."""

    name: str = Field("", max_length=64)
    model: str = Field("", max_length=300)
    question: str = Field("", max_length=200)
    answer: str = Field("", max_length=200)
    system: str = Field("", max_length=20_000)
    target: float | None = Field(None, gt=0, le=1)
    rounds: int | None = Field(None, ge=0, le=10_000)
    minutes: float | None = Field(None, gt=0)

    @property
    def options(self) -> DraftOptions:
        given = {name: getattr(self, name) for name in Settled.model_fields}
        return DraftOptions(**{name: value for name, value in given.items() if value not in ("", None)})


@router.post("", summary="Look at a file of rows, and propose a task", max_body_size=MOST + 4096)
def upload(place: Here, rows: UploadFile) -> HTMLResponse:
    """JSON lines, CSV, TSV or Parquet; of chats, ShareGPT, Alpaca or columns. It is kept beside the runs."""
    name = Path((rows.filename or "").replace("\\", "/")).name
    stem, kind = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(name).stem).strip("-_")[:40] or "rows", Path(name).suffix.lower()
    if kind not in KINDS:
        raise BadInput(f"{name[:60]!r} is no file of rows: take {', '.join(KINDS)}.")
    forget_old(place.root)
    draft = f"{stem}-{secrets.token_hex(4)}"
    folder = place.root / "uploads" / draft
    folder.mkdir(parents=True)
    try:
        with (folder / f"{stem}{kind}").open("xb") as file:
            shutil.copyfileobj(rows.file, file)
        return _shown(draft, draft_task(folder / f"{stem}{kind}"))
    except BadInput:
        shutil.rmtree(folder)
        raise


@router.post("/{draft}", summary="Propose again, with what the user has settled")
def change(place: Here, draft: str, settled: Annotated[Settled, Form()]) -> HTMLResponse:
    """The proposal, anew."""
    return _shown(draft, draft_task(_file(place, draft), settled.options))


@router.post("/{draft}/try", summary="What the seed prompt does on five train rows")
def attempt(place: Here, draft: str, settled: Annotated[Settled, Form()]) -> HTMLResponse:
    """The model is loaded in a process of its own, which ends: this one stays small."""
    proposed = draft_task(_file(place, draft), settled.options)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        tried = processes.submit(try_rows, proposed, TRIED).result().tried
    return render("tried_rows.html.j2", tried=tried)


class Started(Settled):
    """The settled draft, and its task.yaml as the user left it; `seen` is the mark of the one that was proposed."""

    yaml: str = Field(max_length=100_000)
    seen: str = Field("", max_length=64)
    supervised: bool = False

    def text(self, proposed: TaskDraft) -> str:
        """The task.yaml to start: that of the fields, unless the user has written in it; then that counts alone."""
        given = "\n".join(self.yaml.splitlines()) + "\n"  # browsers send lines with \r\n
        return proposed.yaml if mark(given) == self.seen else given


@router.post("/{draft}/start", summary="Write the task, and start a run of it")
def start(place: Here, draft: str, settled: Annotated[Started, Form()]) -> HTMLResponse:
    """The answer leads to the run's page."""
    rows = _file(place, draft)
    proposed = draft_task(rows, settled.options)
    task = proposed.model_copy(update={"yaml": settled.text(proposed)}).write(_new_folder(rows.parent))
    return begin(place, task, [], None, settled.supervised)


def _new_folder(draft: Path) -> Path:
    """A folder for a task. Each start has its own: the run of an earlier one reads its rows there."""
    for number in count(1):
        folder = draft / f"task-{number}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise AssertionError("there is always another number")


def forget_old(root: Path) -> None:
    """Remove uploads that nobody has started a run of for a week; all stay where a run does not say what it reads."""
    old = [folder for folder in root.glob("uploads/*/") if time.time() - folder.stat().st_mtime > KEPT]
    try:
        read = [Path(run.about.source) for run in runs(root)] if old else []
    except BadInput:  # a damaged run
        return
    for folder in old:
        if not any(source.is_relative_to(folder.resolve()) for source in read):
            shutil.rmtree(folder, ignore_errors=True)


def _shown(draft: str, proposed: TaskDraft) -> HTMLResponse:
    columns = list(dict.fromkeys([*proposed.columns.values(), *proposed.unused]))
    rows = proposed.rows["train"][:SHOWN]
    seen = mark(proposed.yaml)
    return render("draft.html.j2", draft=draft, proposed=proposed, columns=columns, rows=rows, seen=seen)


def mark(yaml: str) -> str:
    """Of a task.yaml, to tell whether a user has changed it; blank lines at its ends do not count."""
    return hashlib.sha256(yaml.strip().encode()).hexdigest()


def _file(place: Place, draft: str) -> Path:
    """The uploaded file of a draft. Raises BadInput: there is none."""
    uploads = (place.root / "uploads").resolve()
    folder = (uploads / draft).resolve()
    found = [file for file in folder.glob("*") if file.suffix in KINDS and file.is_file()]
    if not folder.is_relative_to(uploads) or folder.parent != uploads or not found:
        raise BadInput("There is no such file any more; upload it again.")
    return found[0]
