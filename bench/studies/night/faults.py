"""What may happen in a night, and when. Each fault leaves the processes that it kills to whoever starts them again."""

import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import psutil

from bench.studies.night.gateway import Gateway
from eval.tasks.task import load_config
from memory.queue import QueueFolder
from memory.run.folder import RunFolder

Kind = Literal[
    "the run is killed", "the queue is killed", "all is killed", "the LLM is down", "the disk is full",
    "a checkpoint is damaged", "the ledger's last line is damaged", "an adapter is damaged", "a prompt is damaged",
    "Chroma is damaged",
]  # fmt: skip
DAMAGES = frozenset(kind for kind in get_args(Kind) if kind.endswith("damaged"))
NOTHING_TO_DAMAGE = "there is no such file yet"
NOISE = b"\x00\xff{not json"


class Fault(NamedTuple):
    """A fault of the night.

    Attributes:
        at: seconds after the queue was begun.
        seconds: that it lasts, where it does.
        seed: of what is drawn for it.
    """

    at: float
    kind: Kind
    seconds: float
    seed: int


def plan(seed: int, every: float) -> Iterator[Fault]:
    """Faults without end: one every so many seconds, give or take half of them; each kind once before any comes again.

    Args:
        every: seconds.
    """
    chance, at = random.Random(seed), 0.0
    while True:
        deck: list[Kind] = list(get_args(Kind))
        chance.shuffle(deck)
        for kind in deck:
            at += chance.uniform(0.5, 1.5) * every
            yield Fault(round(at, 1), kind, round(chance.uniform(0.15, 0.5) * every, 1), chance.randrange(2**32))


class Turns:
    """Faults in their turn. One that would meet nothing waits until it does, and lets those after it pass.

    Args:
        meets: whether there is something for a fault to spoil now.
    """

    def __init__(self, faults: Iterator[Fault], meets: Callable[[Fault], bool]) -> None:
        self._faults, self._meets = faults, meets
        self._next = next(faults, None)
        self.waiting: list[Fault] = []

    def take(self, now: float) -> Fault | None:
        """The fault whose turn it is; None: there is none.

        Args:
            now: seconds after the queue was begun.
        """
        if self._next and now >= self._next.at:
            self.waiting.append(self._next)
            self._next = next(self._faults, None)
        fault = next((fault for fault in self.waiting if self._meets(fault)), None)
        if fault:
            self.waiting.remove(fault)
        return fault


class Grounds:
    """The place of a night, and the hand that spoils it.

    Args:
        queue: the folder of the queue; it may not be there yet.
        gateway: that the runs ask.
    """

    def __init__(self, queue: QueueFolder, gateway: Gateway) -> None:
        self._queue = queue
        self._gateway = gateway
        self._ballast = queue.root / "ballast"
        self._chroma = queue.root / "memory" / "chroma.sqlite3"

    def kill(self, run: bool = True, queue: bool = True) -> str:
        """SIGKILL to the process of the run, of the queue, or both; waits until they are gone, and says which."""
        here = [process for process in psutil.process_iter(["cmdline"]) if self._picks(process, run, queue)]
        for process in here:
            process.send_signal(signal.SIGKILL)
        until = time.monotonic() + 30
        while any(_lives(process) for process in here) and time.monotonic() < until:
            time.sleep(0.05)
        return f"{len(here)} killed"

    def _picks(self, process: psutil.Process, run: bool, queue: bool) -> bool:
        words = process.info["cmdline"] or []
        ours = "nesylora" in words and any(str(self._queue.root) in word for word in words)
        return ours and (run if "--worker" in words else queue)

    def let_llm_down(self, until: float) -> None:
        """Until this reading of time.monotonic()."""
        self._gateway.down_until = until

    def fill_the_disk(self) -> int:
        """With zeros, to the last byte. Returns how many."""
        written = 0
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while True:
                        written += file.write(bytes(size))
                except OSError:
                    continue
        return written

    def free_the_disk(self) -> None:
        """Take the zeros away."""
        self._ballast.unlink(missing_ok=True)

    def meets(self, fault: Fault) -> bool:
        """Whether there is something for the fault to spoil: the file, or a run that asks the LLM."""
        if not self._queue.rows_file.exists():
            return False
        run = self._run()
        if fault.kind == "Chroma is damaged":
            return self._chroma.exists()
        if fault.kind not in DAMAGES and fault.kind != "the LLM is down":
            return True
        if run is None:
            return False
        match fault.kind:
            case "the LLM is down":
                return bool(load_config(run.task_file).roles)
            case "a checkpoint is damaged":
                return run.checkpoints.exists()
            case "an adapter is damaged":
                return any(run.path.glob("adapters/*/complete"))
            case _:
                return run.baseline() is not None

    def damage(self, fault: Fault) -> str:
        """Damage a file of the run under way, while nobody is at work. Says what was done; "" if there is none."""
        run, chance = self._run(), random.Random(fault.seed)
        if fault.kind == "Chroma is damaged":
            return _overwritten(self._chroma, chance)
        if run is None:
            return ""
        match fault.kind:
            case "a checkpoint is damaged":
                return _checkpoint(run, chance)
            case "the ledger's last line is damaged":
                return _last_line(run.path / "ledger.jsonl")
            case "an adapter is damaged":
                return _adapter(run, chance)
            case _:
                return _prompt(run)

    def _run(self) -> RunFolder | None:
        started = [item.run for item in self._queue.read().items if item.run]
        run = RunFolder(self._queue.root / started[-1]) if started else None
        return run if run and (run.path / "run.json").exists() else None


def _lives(process: psutil.Process) -> bool:
    """Not reaped here: the queue's process is a child of ours, whose exit code is wanted."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _checkpoint(run: RunFolder, chance: random.Random) -> str:
    """The pages of the database behind its first, or the newest checkpoint in it."""
    if not run.checkpoints.exists():
        return ""
    with closing(sqlite3.connect(run.checkpoints)) as database:
        if chance.random() < 0.5:
            newest = "(SELECT max(rowid) FROM checkpoints)"
            database.execute(f"UPDATE checkpoints SET checkpoint = ? WHERE rowid = {newest}", (NOISE,))
            database.commit()
            return f"{run.name}/checkpoints.sqlite: the newest checkpoint"
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return _overwritten(run.checkpoints, chance)


def _overwritten(file: Path, chance: random.Random) -> str:
    """A part of a file behind its first 4,096 bytes becomes noise."""
    if not file.exists():
        return ""
    data = bytearray(file.read_bytes())
    begin = min(4096, len(data) // 2)
    data[begin:] = chance.randbytes(len(data) - begin)
    file.write_bytes(data)
    return f"{file.parent.name}/{file.name}: {len(data) - begin:,} bytes"


def _last_line(file: Path) -> str:
    lines = file.read_bytes().splitlines() if file.exists() else []
    if not lines:
        return ""
    file.write_bytes(b"".join(line + b"\n" for line in [*lines[:-1], NOISE]))
    return f"{file.parent.name}/{file.name}, line {len(lines)}"


def _adapter(run: RunFolder, chance: random.Random) -> str:
    """Half of the newest adapter's weights is lost, or a bit of them turns."""
    weights = [marker.with_name("adapter_model.safetensors") for marker in run.path.glob("adapters/*/complete")]
    if not weights:
        return ""
    newest = max(weights, key=lambda file: file.stat().st_mtime)
    data, half = bytearray(newest.read_bytes()), chance.random() < 0.5
    if half:
        del data[len(data) // 2 :]
    else:
        data[-20] ^= 4
    newest.write_bytes(data)
    return f"{run.name}/adapters/{newest.parent.name}: {'half of it' if half else 'a bit'}"


def _prompt(run: RunFolder) -> str:
    """The best pair's prompt."""
    first, rounds = run.baseline(), run.rounds()
    if first is None:
        return ""
    prompt = (rounds[-1] if rounds else first).best.prompt
    (run.path / "prompts" / f"{prompt}.json").write_bytes(NOISE)
    return f"{run.name}/prompts/{prompt}.json"
