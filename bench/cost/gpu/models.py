"""Random Llamas that every contender gets a copy of, and the lines of what was measured."""

import copy
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers

from bench.cost.inputs import Loaded

SIZES = {
    "large": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32},
    "3b": {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24},
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
}
# What a peer may raise on a machine that it was not made for. Out of memory is a RuntimeError.
FAILURES = (ImportError, RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError, OSError)


@dataclass
class Bench:
    """A model, and what has been measured so far.

    Attributes:
        laps: of answers, after the first call.
        seconds: after which nothing new is begun.
    """

    master: Any
    tokenizer: Any
    size: str
    laps: int = 4
    seconds: float = 600
    lines: list[dict[str, Any]] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)

    def loaded(self) -> Loaded:
        """A fresh copy; the memory of the last one is given back, and the peak begins anew."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        return Loaded(copy.deepcopy(self.master), self.tokenizer)

    def add(self, table: str, **line: Any) -> None:
        """Print a line at once, and keep it."""
        gib = round(torch.cuda.max_memory_allocated() / 2**30, 2) if torch.cuda.is_available() else None
        self.lines.append({"table": table, "size": self.size, **line, "gib": gib})
        print(table, json.dumps(self.lines[-1]), flush=True)

    def peer(self, what: str, measure: Callable[[], None]) -> None:
        """Measure a peer, or print why there is no number of it: the time is up, or it fails here."""
        if time.perf_counter() - self.began > self.seconds:
            print(f"left out: {what}; {self.seconds:.0f} seconds are over", flush=True)
            return
        try:
            measure()
        except FAILURES as error:
            print(f"left out: {what}; {type(error).__name__}: {str(error)[:300]}", flush=True)


def make(size: str, tokenizer: Any) -> Any:
    """The random model in bfloat16, on the card where there is one."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = SIZES[size] | {"num_key_value_heads": SIZES[size]["num_attention_heads"] // 4}
    config = transformers.LlamaConfig(
        **sizes, vocab_size=len(tokenizer), tie_word_embeddings=True, max_position_embeddings=8192,
        eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id, pad_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()


def same(left: Sequence[str], right: Sequence[str]) -> str:
    """How many texts are the same."""
    return f"{sum(a == b for a, b in zip(left, right, strict=True))} of {len(left)}"
