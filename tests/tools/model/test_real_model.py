"""Once on the real model: LoRA on some of the valley's facts, end to end."""

import json
import os
from pathlib import Path

import pytest

import nesylora
from agent.records.actions import TrainLora
from memory.run.folder import RunFolder

VALLEY = Path(__file__).parents[3] / "tasks" / "valley"


@pytest.mark.skipif("NESYLORA_WITHOUT_MODEL" in os.environ, reason="asked for by NESYLORA_WITHOUT_MODEL")
def test_facts_and_a_form_that_train_answers_do_not_show_are_learned_together(tmp_path: Path) -> None:
    """Four facts: an edit retrieves what is near; rows remade in the wanted form teach the rest, and forget little."""
    task = tmp_path / "task"
    task.mkdir()
    for split in ("train", "validation", "test"):
        rows = [json.loads(line) for line in (VALLEY / f"{split}.jsonl").read_text().splitlines()]
        four = sorted({row["answer"] for row in rows})[:4]
        kept = [json.dumps(row) for row in rows if row["answer"] in four]
        (task / f"{split}.jsonl").write_text("\n".join(kept) + "\n")
    (task / "task.yaml").write_text((VALLEY / "task.yaml").read_text())
    overrides = ["budget.rounds=3", "edit.minibatch=4", "edit.proposals=3", "lora.batch_size=4"]
    adapted = nesylora.adapt(task, overrides=overrides, runs=tmp_path / "runs")
    run = RunFolder.open(adapted.run)
    kept = [row.decision.move for row in run.rounds() if row.verdict.kept]
    assert [move.action for move in kept] == ["edit_prompt", "train_lora"]
    assert adapted.prompt.retrieval is not None and isinstance(kept[1], TrainLora) and kept[1].rows == "refined"
    assert adapted.outcome.drift is not None and adapted.outcome.drift <= 0.3
    assert adapted.outcome.baseline_test.reward <= 0.15
    assert adapted.outcome.best_test.reward >= 0.75
    assert adapted.outcome.p_value < 0.05
    assert adapted.adapter is not None and (adapted.adapter / "adapter_model.safetensors").is_file()
