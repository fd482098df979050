"""A real browser on a real server: what the tests of the page in Chromium stand on."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).parents[3]
CHROMIUM = Path(shutil.which("chromium") or "/usr/bin/chromium")
AXE = "4.14.1"
AXE_SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"


class Served:
    """`nesylora ui` in a process of its own."""

    def __init__(self, runs: Path, port: int = 0) -> None:
        command = [sys.executable, "nesylora.py", "ui", "--no-open", "--port", str(port), "--runs", str(runs)]
        self.process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, env=os.environ)
        assert self.process.stdout
        said = [self.process.stdout.readline() for _ in range(3)]
        self.link = said[2].strip()
        found = re.match(r"http://127\.0\.0\.1:(\d+)/enter", self.link)
        assert found, said
        self.port = int(found[1])
        self.address = f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def chromium() -> Iterator["Page"]:
    """A page in a headless browser. Skips the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM} here")
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(400_000)  # a busy machine takes its time; only a failure waits so long
        yield page
        browser.close()


def axe() -> str:
    """axe-core's script, from npm once and then from the temporary folder. Skips the test where it cannot be had."""
    kept = Path(tempfile.gettempdir()) / f"axe-core-{AXE}.min.js"
    if not kept.exists():
        with tempfile.TemporaryDirectory() as folder:
            try:
                pack = ["npm", "pack", "--silent", f"axe-core@{AXE}"]
                subprocess.run(pack, cwd=folder, check=True, capture_output=True, timeout=60)
                shutil.unpack_archive(Path(folder) / f"axe-core-{AXE}.tgz", folder)
            except (OSError, subprocess.SubprocessError) as error:
                pytest.skip(f"axe-core {AXE} cannot be had from npm: {error}")
            mine = kept.with_suffix(f".{os.getpid()}")  # renamed when it is whole: other tests read it
            shutil.copy(Path(folder) / "package" / "axe.min.js", mine)
            mine.replace(kept)
    script = kept.read_bytes()
    assert hashlib.sha256(script).hexdigest() == AXE_SHA256
    return script.decode()


def serious(page: "Page") -> list[str]:
    """What axe finds on the page that is serious or critical, or breaks WCAG 2 A or AA."""
    page.evaluate(axe())
    found = page.evaluate(
        "axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})"
    )
    return [
        f"{fault['id']} ({fault['impact']}): {[node['html'][:160] for node in fault['nodes'][:3]]}"
        for fault in found["violations"]
        if fault["impact"] in ("serious", "critical") or any(tag.startswith("wcag") for tag in fault["tags"])
    ]
