"""An hour of a run on the page, in minutes: does the memory of the server and of the browser stay where it is?

python -m bench.overheads.page_hour RUN [MINUTES]

A real run on two cores writes 60 to 560 events an hour, and trains or answers about a step a second: so many messages a
browser gets in an hour. Here they come over the run's own socket and event log, from this process to a real server, and
from there to a browser (Chromium, by Playwright) and a client that counts. RUN is a run folder whose rounds are taken
again and again.
"""

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

import httpx
import psutil
from playwright.sync_api import sync_playwright

from agent.records.events import DecisionMade, Note, RoundJudged, RoundStarted
from agent.records.rounds import Round
from bench.overheads.page import long_run
from graphs.control.driver import Driver
from graphs.control.socket import served, taken
from graphs.control.steering import RunStatus, Step
from graphs.control.watching import status_of_folder
from memory.run.folder import RunFolder
from ui.page.gate import KEY_FILE, Keys

ROUNDS = 120  # an hour of short rounds: with five lines each, as many events as the busiest run that was measured
STEPS = 30  # of work in a round, each told: 3,600 in an hour
BEFORE = 20  # rounds that the run has at first
MINUTES = 8.0
CHROMIUM = "/usr/bin/chromium"


class Played:
    """A run that seems to work. Of `Steering` it has what a page asks for while nobody clicks."""

    error = None

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._changed = threading.Condition()
        self._version, self._step = 0, Step()

    def works(self, done: int) -> None:
        """A step of the round is done."""
        left = float(STEPS - done)
        with self._changed:
            self._step = Step(what="training LoRA", done=done, total=STEPS, note=f"loss {left:.3f}", seconds_left=left)
            self._version += 1
            self._changed.notify_all()

    def status(self, after: int = -1, seconds: float = 0.0) -> RunStatus:
        with self._changed:
            self._changed.wait_for(lambda: self._version > after, seconds)
            known = status_of_folder(self._run, "working")
            return known.model_copy(update={"version": self._version, "step": self._step})


class Held(NamedTuple):
    """What is held: by the server in resident bytes; by the page as bytes of its JavaScript heap, and nodes."""

    server: int
    heap: int
    nodes: int


class Reader(threading.Thread):
    """Reads the messages as a client of its own, and counts them."""

    def __init__(self, url: str, cookies: dict[str, str]) -> None:
        super().__init__(daemon=True)
        self._url, self._cookies = url, cookies
        self.messages = 0

    def run(self) -> None:
        with (
            suppress(httpx.RemoteProtocolError),  # the server ends first
            httpx.stream("GET", self._url, cookies=self._cookies, timeout=None) as answer,
        ):
            for line in answer.iter_lines():
                self.messages += line.startswith("id:")


def play(run: RunFolder, played: Played, rows: list[Round], first: int, pause: float) -> None:
    """The events of a quarter of an hour."""
    for number in range(first, first + ROUNDS // 4):
        row = rows[number % len(rows)].model_copy(update={"number": number})
        run.event(RoundStarted(number=number))
        run.event(DecisionMade(number=number, decision=row.decision))
        for done in range(1, STEPS + 1):
            played.works(done)
            time.sleep(pause)
        run.event(Note(text=f"Round {number} is over."))
        run.append(row)
        run.event(RoundJudged(row=row))


def hour(run: RunFolder, root: Path, minutes: float) -> None:
    """Play it, and print what is held at each quarter."""
    keys, rows, pause = Keys(root), run.rounds(), minutes * 60 / (ROUNDS * STEPS)
    cookies = {keys.cookie: (root / KEY_FILE).read_text().strip()}
    played = Played(run)
    command = [sys.executable, "-m", "nesylora", "ui", "--no-open", "--port", "0", "--runs", str(root)]
    with (
        run.locked(), taken(run) as mine, served(cast(Driver, played), run, mine), sync_playwright() as tools,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server,
    ):  # fmt: skip
        assert server.stdout
        address = server.stdout.readline().split()[-1]
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            page = browser.new_page()
            page.context.add_cookies([{"name": name, "value": key, "url": address} for name, key in cookies.items()])
            page.goto(f"{address}/runs/{run.name}", timeout=120_000)
            devtools = page.context.new_cdp_session(page)
            devtools.send("Performance.enable")
            reader = Reader(f"{address}/runs/{run.name}/events", cookies)
            reader.start()
            measure(lambda: held(server.pid, devtools), reader, "at first")
            for quarter in range(4):
                play(run, played, rows, len(rows) + 1 + quarter * (ROUNDS // 4), pause)
                time.sleep(2)  # the last messages are on their way
                shown = page.locator("#feed li").count(), page.locator("#rounds > *").count()
                measure(lambda: held(server.pid, devtools), reader, f"quarter {quarter + 1}", shown)
        finally:
            browser.close()
            server.terminate()


def measure(look: Callable[[], Held], reader: Reader, when: str, shown: tuple[int, int] | None = None) -> None:
    found = look()
    entries = f", {shown[0]} entries and {shown[1]} rounds on the page" if shown else ""
    print(
        f"{when}: {reader.messages:,} messages; server {found.server / 1e6:.1f} MB; page {found.heap / 1e6:.2f} MB of "
        f"JavaScript, {found.nodes:,} nodes{entries}", flush=True,
    )  # fmt: skip


def held(server: int, devtools: Any) -> Held:
    """After a garbage collection in the browser, so that only what is held counts."""
    for _ in range(2):
        devtools.send("HeapProfiler.collectGarbage")
    metrics = {metric["name"]: metric["value"] for metric in devtools.send("Performance.getMetrics")["metrics"]}
    return Held(psutil.Process(server).memory_info().rss, int(metrics["JSHeapUsedSize"]), int(metrics["Nodes"]))


def main(source: Path, minutes: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        hour(long_run(source, root, BEFORE), root, minutes)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else MINUTES)
