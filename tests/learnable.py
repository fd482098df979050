"""What even a tiny random model can learn, so that whole runs take seconds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

TinyTask = Callable[..., Path]
# One answer to everything. The two demonstrations are of no use to it, so that the first edit, one fewer, wins its
# tie; then LoRA brings the content.
LEARNABLE: dict[str, Any] = {
    "answer": "Heskzan",
    "style": [],
    "prompt": {
        "system": "Answer.",
        "demos": [{"question": "1?", "answer": "one"}, {"question": "2?", "answer": "two"}],
    },
    "lora": {"epochs": 20, "rank": 8, "batch_size": 1, "learning_rate": 0.01, "warmup": 0},
    "generation": {"max_new_tokens": 12},
    "gate": {"alpha": 0.2},
}
