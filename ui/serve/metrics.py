"""What the server counts, as Prometheus reads it."""

from collections import Counter
from collections.abc import Iterator

from tools.continuous.engine import Engine
from ui.serve.exchange import Exchange

BOUNDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)  # seconds
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """Seconds, by how many are at most so long."""

    def __init__(self) -> None:
        self.count, self.sum = 0, 0.0
        self._at_most = [0] * len(BOUNDS)

    def add(self, seconds: float) -> None:
        self.count += 1
        self.sum += seconds
        for place, bound in enumerate(BOUNDS):
            self._at_most[place] += seconds <= bound

    def lines(self, name: str) -> Iterator[str]:
        for bound, count in zip(BOUNDS, self._at_most, strict=True):
            yield f'{name}_bucket{{le="{bound}"}} {count}'
        yield f'{name}_bucket{{le="+Inf"}} {self.count}'
        yield f"{name}_sum {self.sum:.6f}"
        yield f"{name}_count {self.count}"


class Metrics:
    """Counts of all requests since the start."""

    def __init__(self) -> None:
        self.duration, self.first_piece = Histogram(), Histogram()
        self._requests: Counter[tuple[str, str]] = Counter()
        self._tokens: Counter[tuple[str, str]] = Counter()
        self._refused: Counter[int] = Counter()

    def ended(self, exchange: Exchange, now: float) -> None:
        model = exchange.served.name
        self._requests[model, exchange.finish or "gone"] += 1
        self._tokens[model, "prompt"] += len(exchange.row.prompt)
        self._tokens[model, "generated"] += exchange.row.generated
        self.duration.add(now - exchange.arrived)
        if exchange.first is not None:
            self.first_piece.add(exchange.first - exchange.arrived)

    def refused(self, status: int) -> None:
        self._refused[status] += 1

    def text(self, engine: Engine) -> str:
        """All of it, in the text format of version 0.0.4."""
        return "\n".join(self._lines(engine)) + "\n"

    def _lines(self, engine: Engine) -> Iterator[str]:
        yield from _head("requests_total", "counter", "answered requests, by model and how they ended")
        for (model, finish), count in sorted(self._requests.items()):
            yield f'nesylora_requests_total{{model="{_escaped(model)}",finish="{finish}"}} {count}'
        yield from _head("refused_total", "counter", "requests that were refused, by status")
        for status, count in sorted(self._refused.items()):
            yield f'nesylora_refused_total{{status="{status}"}} {count}'
        yield from _head("tokens_total", "counter", "tokens of prompts, and generated ones")
        for (model, kind), count in sorted(self._tokens.items()):
            yield f'nesylora_tokens_total{{model="{_escaped(model)}",kind="{kind}"}} {count}'
        yield from _head("running", "gauge", "rows that are answered now")
        yield f"nesylora_running {engine.running}"
        yield from _head("waiting", "gauge", "rows that wait")
        yield f"nesylora_waiting {engine.waiting}"
        yield from _head("steps_total", "counter", "forward passes")
        yield f"nesylora_steps_total {engine.counts.steps}"
        yield from _head("rows_stepped_total", "counter", "rows of these passes; divided by them, rows of a pass")
        yield f"nesylora_rows_stepped_total {engine.counts.rows_stepped}"
        for name, histogram, about in (
            ("request_seconds", self.duration, "from a request's arrival to its end"),
            ("first_piece_seconds", self.first_piece, "from a request's arrival to the first piece of its answer"),
        ):
            yield from _head(name, "histogram", about)
            yield from histogram.lines(f"nesylora_{name}")


def _head(name: str, kind: str, about: str) -> Iterator[str]:
    yield f"# HELP nesylora_{name} {about}"
    yield f"# TYPE nesylora_{name} {kind}"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
