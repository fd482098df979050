"""The run's best pair to take along: `nesylora export` in a process of its own, and its folder as one file."""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZIP_DEFLATED, ZipFile

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse
from starlette.background import BackgroundTask

from agent.errors import BadInput, NesyLoraError
from export.manifest import FILE, check_pair, read_manifest
from ui.page.place import Run
from ui.page.rendering import partial, text

router = APIRouter(prefix="/runs/{name}", tags=["orders"])
MINUTES = 9  # the browser gives up after ten


@router.post("/export", summary="Make the bundle of the best pair")
def export(run: Run) -> HTMLResponse:
    """The model is loaded in a process that ends with it. The answer holds a link to the file."""
    command = [sys.executable, "-P", "-m", "nesylora", "export", str(run.path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MINUTES * 60, check=False)
    except subprocess.TimeoutExpired:
        raise NesyLoraError(f"It takes longer than {MINUTES} minutes: run nesylora export {run.name}.") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise NesyLoraError(f"The bundle could not be made: {said[-1] if said else 'nobody says why'}")
    link = f"/runs/{run.name}/bundle"
    return HTMLResponse(partial("#said", text("said.html.j2", text="The bundle is made:", link=link), "innerHTML"))


@router.get("/bundle", summary="The bundle as one file", response_class=FileResponse)
def download(run: Run) -> FileResponse:
    """A ZIP of the files that `export` made, as long as it is of the best pair that the run has now."""
    bundle = run.path / "bundle"
    if not (bundle / FILE).is_file():
        raise BadInput(f"Run {run.name} has no bundle yet: make one with Export, or nesylora export {run.name}.")
    check_pair(run, bundle, read_manifest(bundle))
    folder = TemporaryDirectory(prefix="nesylora-bundle-")
    packed = Path(folder.name) / "bundle.zip"
    with ZipFile(packed, "w", ZIP_DEFLATED) as archive:
        for file in _files(bundle):
            archive.write(file, Path(run.name) / file.relative_to(bundle))
    return FileResponse(
        packed, filename=f"{run.name}.zip", media_type="application/zip", background=BackgroundTask(folder.cleanup)
    )


def _files(bundle: Path) -> list[Path]:
    """Plain files only: a link could lead anywhere."""
    return sorted(file for file in bundle.rglob("*") if file.is_file() and not file.is_symlink())
