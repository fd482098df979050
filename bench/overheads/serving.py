"""What serving costs: `nesylora serve` beside transformers' own server on the same requests, and memory under load.

Run: python -m bench.overheads.serving BUNDLE [--laps 3] [--minutes 10], of a bundle that was exported with --merged,
from the example task valley. The servers get the same messages and take turns, so that a busy machine slows both.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil

from agent.example_tasks import shipped
from export.loaded import Bundle

ANSWERS = 64  # requests of a lap
LONG = 24  # tokens of a long answer
LAP = {1: 4}  # requests of a lap, one at a time
ONE_BY_ONE = 16  # requests of a lap of a server that answers one after another: more take longer, at the same rate
# Room for 64 requests of 256 tokens. Left to itself on a CPU, its cache of keys and values took 12 GB, and the system
# ended it at the first request.
BATCHING = ("--continuous-batching", "--cb-block-size", "32", "--cb-num-blocks", "512", "--cb-max-batch-tokens", "512")
Request = tuple[str, dict[str, Any]]  # the address below /v1, and the body without its model


@dataclass(frozen=True)
class Lap:
    """Requests sent to one server, so many at a time.

    Attributes:
        cpu: processor seconds that the server took for them; on a busy machine, steadier than the time on the clock.
    """

    server: str
    work: str
    at_a_time: int
    seconds: float
    cpu: float
    tokens: int
    texts: tuple[str, ...]

    @property
    def per_second(self) -> float:
        return len(self.texts) / self.seconds


@dataclass(frozen=True)
class Running:
    """A server, and the name by which it has the model."""

    name: str
    url: str
    model: str
    pid: int


@contextmanager
def ours(bundle: Path, port: int, names: Sequence[str] = ("valley",)) -> Iterator[Running]:
    """`nesylora serve`; the bundle under each of the names."""
    command = [sys.executable, "-c", "import nesylora; nesylora.main()", "serve", "--port", str(port)]
    with _started([*command, *(f"{name}={bundle}" for name in names)], port) as pid:
        yield Running("nesylora", f"http://127.0.0.1:{port}", names[0], pid)


@contextmanager
def theirs(bundle: Path, port: int, batching: bool) -> Iterator[Running]:
    """`transformers serve` of the merged model."""
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(bundle / "merged")]
    options = ["--port", str(port), "--device", "cpu", "--dtype", "float32", "--log-level", "error"]
    with _started([*command, *options, *(BATCHING if batching else ())], port) as pid:
        name = f"transformers{', continuous batching' if batching else ''}"
        yield Running(name, f"http://127.0.0.1:{port}", str(bundle / "merged"), pid)


@contextmanager
def _started(command: Sequence[str], port: int) -> Iterator[int]:
    environment = os.environ | {"NESYLORA_TOKEN": "", "HF_HUB_OFFLINE": "1"}
    environment.pop("NESYLORA_TOKEN")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise SystemExit(f"{command} ended with {process.returncode}")
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.5)
        yield process.pid
    finally:
        process.terminate()
        process.wait(60)


def requests(bundle: Path) -> dict[str, list[Request]]:
    """By kind of work: the task's questions with their whole prompts, and texts that are continued for long."""
    loaded = Bundle(bundle)
    rows = [json.loads(line) for line in (shipped("valley") / "test.jsonl").read_text().splitlines()]
    asked = [rows[place % len(rows)]["question"] for place in range(ANSWERS)]
    new = loaded.manifest.max_new_tokens
    short = [
        ("chat/completions", {"messages": loaded.messages(question), "max_tokens": new, "temperature": 0})
        for question in asked
    ]
    long = [
        ("completions", {"prompt": f"{place}. Once upon a time, a river", "max_tokens": LONG, "temperature": 0})
        for place in range(ANSWERS)
    ]
    return {"answers": short, "long texts": long}


def lap(server: Running, work: str, sent: Sequence[Request], at_a_time: int, models: Sequence[str] = ()) -> Lap:
    """Send the requests, so many at a time."""
    names = models or (server.model,)

    def ask(numbered: tuple[int, Request]) -> tuple[str, int]:
        place, (path, body) = numbered
        asked = body | {"model": names[place % len(names)]}
        answer = client.post(f"{server.url}/v1/{path}", json=asked)
        answer.raise_for_status()
        [choice] = answer.json()["choices"]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        return text.strip(), answer.json()["usage"]["completion_tokens"]

    limits = httpx.Limits(max_connections=at_a_time)
    with httpx.Client(timeout=900, limits=limits) as client, ThreadPoolExecutor(at_a_time) as pool:
        began, taken = time.perf_counter(), _processor_seconds(server.pid)
        told = list(pool.map(ask, enumerate(sent)))
        seconds, taken = time.perf_counter() - began, _processor_seconds(server.pid) - taken
    texts, tokens = zip(*told, strict=True)
    return Lap(server.name, work, at_a_time, seconds, taken, sum(tokens), texts)


def _processor_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def compare(bundle: Path, laps: int) -> list[Lap]:
    """Laps of all servers in turn."""
    work, made = requests(bundle), []
    with ours(bundle, 8101) as first, theirs(bundle, 8102, False) as plain, theirs(bundle, 8103, True) as batching:
        servers = (first, plain, batching)
        for server in servers:  # warm
            lap(server, "warm", work["answers"][:2], 1)
        for _ in range(laps):
            for kind, sent in work.items():
                for at_a_time in (1, 64):
                    for server in servers:
                        most = ONE_BY_ONE if server is plain else ANSWERS
                        made.append(lap(server, kind, sent[: LAP.get(at_a_time, most)], at_a_time))
                        _show(made[-1])
    return made


def switching(bundle: Path, laps: int) -> float:
    """Throughput of 64 requests at a time over two adapters, as a share of that over one."""
    sent, names, shares = requests(bundle)["answers"], ("valley", "again"), []
    with ours(bundle, 8104, names) as server:
        lap(server, "warm", sent[:2], 1)
        for _ in range(laps):
            one, two = (lap(server, "answers", sent, 64, models) for models in (names[:1], names))
            shares.append(two.per_second / one.per_second)
    return median(shares)


def under_load(bundle: Path, minutes: float) -> list[tuple[float, int]]:
    """Seconds and resident bytes of the server while `hey` asks it, 32 at a time and one a new connection each."""
    hey = shutil.which("hey")
    if hey is None:
        raise SystemExit("hey is not installed: apt-get install hey")
    path, body = requests(bundle)["answers"][0]
    samples = []
    with ours(bundle, 8105) as server:
        sent = json.dumps(body | {"model": server.model, "stream": True})
        options = ["-z", f"{minutes}m", "-c", "32", "-t", "120", "-disable-keepalive", "-m", "POST"]
        command = [hey, *options, "-T", "application/json", "-d", sent, f"{server.url}/v1/{path}"]
        with subprocess.Popen(["nice", *command], stdout=subprocess.PIPE, text=True) as load:
            began = time.monotonic()
            while load.poll() is None:
                samples.append((time.monotonic() - began, psutil.Process(server.pid).memory_info().rss))
                time.sleep(5)
            assert load.stdout is not None
            print("\n".join(line for line in load.stdout.read().splitlines() if re.search(r"\[\d+\]|Req|Aver", line)))
        print(httpx.get(f"{server.url}/health").text)
    return samples


def _show(made: Lap) -> None:
    print(
        f"{made.server:38} {made.work:10} {made.at_a_time:3} at a time: {made.per_second:6.2f} requests/s, "
        f"{made.tokens / made.seconds:6.1f} tokens/s, {made.cpu / len(made.texts):.2f} processor seconds a request",
        flush=True,
    )


def _summary(made: Sequence[Lap]) -> None:
    """Medians, as ratios to ours, and the texts that agree."""
    keys = list(dict.fromkeys((one.work, one.at_a_time) for one in made))
    for work, at_a_time in keys:
        by_server: dict[str, list[Lap]] = {}
        for one in made:
            if (one.work, one.at_a_time) == (work, at_a_time):
                by_server.setdefault(one.server, []).append(one)
        mine = by_server["nesylora"]
        for name, laps in by_server.items():
            if laps is mine:
                continue
            pairs = list(zip(mine, laps, strict=True))
            ratio = median(our.per_second / their.per_second for our, their in pairs)
            cpu = median(their.cpu / len(their.texts) / (our.cpu / len(our.texts)) for our, their in pairs)
            same = sum(a == b for a, b in zip(mine[0].texts, laps[0].texts, strict=False))
            print(
                f"{work}, {at_a_time} at a time, ours to {name}: {ratio:.2f} times the requests/s, "
                f"{cpu:.2f} times the requests a processor second, {same}/{len(laps[0].texts)} texts the same"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--laps", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=0, help="of load, for the memory; 0: none")
    options = parser.parse_args()
    if options.laps:
        _summary(compare(options.bundle, options.laps))
        print(f"two adapters: {switching(options.bundle, options.laps):.2f} of the requests/s of one")
    if options.minutes:
        samples = under_load(options.bundle, options.minutes)
        for share in (0.1, 0.25, 0.5, 0.75, 1):
            seconds, held = samples[min(len(samples) - 1, int(share * len(samples)))]
            print(f"after {seconds:5.0f} s: {held / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
