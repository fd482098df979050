"""Runs with an adapter, and models as an export finds them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from graphs.approval import instead
from graphs.context import new_run
from graphs.session import open_session
from memory.run.folder import RunFolder
from tests.fixtures.learnable import TinyTask

DEMOS = [{"question": 'Say "{a}"?', "answer": "{{ a }} {% b %}\n\\"}]
PROMPT = {"system": 'Start with "A".', "demos": DEMOS, "template": "Q: {question}\n"}


def take(run: RunFolder, adapter: str | None) -> None:
    """Makes the pair with this adapter the best one in the ledger."""
    ledger = run.path / "ledger.jsonl"
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    lines[-1]["best"]["adapter"] = adapter
    ledger.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


@pytest.fixture
def trained(tiny_task: TinyTask, tmp_path: Path) -> Callable[..., RunFolder]:
    """A run whose best pair has an adapter, whatever it is worth."""

    def make(lora: dict[str, object] | None = None, **changes: object) -> RunFolder:
        task = tiny_task(**({"prompt": PROMPT, "target": 1.0} | changes))
        if lora:
            settings = yaml.safe_load((task / "task.yaml").read_text())
            settings["lora"] |= lora
            (task / "task.yaml").write_text(yaml.safe_dump(settings))
        run = new_run(task, ["recall.prompts=0", "gate.alpha=0.9"], tmp_path / "runs", name="made")
        with open_session(run, supervised=True) as session:
            session.go()
            session.go(instead("train_lora", rows="refined", epochs=1))
        [row] = run.rounds()
        assert row.trial.candidate is not None
        take(run, row.trial.candidate.adapter)
        return run

    return make


@pytest.fixture
def saved(tiny_model: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A model with its tokenizer as it works in transformers, which is what an export saves.

    (Of a Qwen 2, transformers cuts text as Qwen does, whatever its tokenizer.json says.)
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    def save(name: str) -> Path:
        folder, config = tmp_path / name, AutoConfig.from_pretrained(tiny_model(name))
        if name == "gemma3":
            config.query_pre_attn_scalar = config.head_dim  # as Google's
        model = AutoModelForCausalLM.from_pretrained(tiny_model(name), config=config, dtype="float32")
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(tiny_model(name)).save_pretrained(folder)
        return folder

    return save
