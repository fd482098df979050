"""Writes docs/page.png and docs/page-small.png: a run on the page, wide and light, narrow and dark.

Run: python docs/screenshots.py RUNS/RUN (needs playwright and Chromium)
"""

import socket
import sys
import tempfile
import threading
from pathlib import Path
from shutil import copytree, ignore_patterns, which

import uvicorn
from playwright.sync_api import Browser, sync_playwright

from ui.page.app import make_app
from ui.page.gate import Keys
from ui.page.place import Workers

HERE = Path(__file__).parent
SHOTS = {"page.png": (1280, 900, "light"), "page-small.png": (400, 860, "dark")}


def main(run: Path) -> None:
    """A copy of the run is shown, so that nothing is written beside the real one."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as tools:
        root = Path(folder)
        copytree(run, root / run.name, ignore=ignore_patterns("adapters", "*.sqlite*"))
        keys = Keys(root)
        listening = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(make_app(root, Workers(), keys), log_level="warning", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        here = f"http://127.0.0.1:{listening.getsockname()[1]}"
        browser = tools.chromium.launch(executable_path=which("chromium"), args=["--no-sandbox"])
        try:
            for name in SHOTS:
                shoot(browser, here + keys.link(), f"{here}/runs/{run.name}", name)
        finally:
            browser.close()
            server.should_exit = True
            thread.join()


def shoot(browser: Browser, link: str, address: str, name: str) -> None:
    """One picture, once everything on the first screen is there."""
    width, height, scheme = SHOTS[name]
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(link)
    page.goto(address)
    page.wait_for_selector("#examples .example")
    page.wait_for_timeout(500)
    page.screenshot(path=HERE / name)
    page.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
