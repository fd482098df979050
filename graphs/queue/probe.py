"""How fast this machine answers with a model: `python -m graphs.queue.probe`, a process of its own.

Reads a task's folder and settings from standard input; prints a `Rate`.
"""

import json
import sys
import time
from pathlib import Path

from agent.config.task import TaskConfig
from agent.records.queue import Rate
from agent.signal.cost_model import FASTER
from eval.tasks.task import build_task
from graphs.services.shared_model import shared_backbone

ROWS = 8  # that are answered, after one to warm up


def main() -> None:
    """Load the model, answer a few validation rows, and print the rate."""
    asked = json.load(sys.stdin)
    config = TaskConfig.model_validate(asked["config"])
    task = build_task(config, Path(asked["folder"]))
    model = shared_backbone(config, Path, lambda *_: None, lambda _: None, lambda _: None)
    prompt, new = config.prompt.prompt(), config.generation.max_new_tokens
    model.generate(prompt, task.validation[:1], adapter=None, max_new_tokens=min(new, 4))
    began = time.monotonic()
    _, spend = model.generate(prompt, task.validation[:ROWS], adapter=None, max_new_tokens=new)
    rate = spend.forward_tokens / max(time.monotonic() - began, 1e-6)
    print(Rate(answering=rate, training=FASTER * rate, source="a probe just now").model_dump_json())


if __name__ == "__main__":
    main()
