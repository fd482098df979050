"""Seed prompts from elsewhere: of another run or a bundle, of DSPy, of GEPA."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nesylora
from agent.config.prompt import SeedPrompt
from agent.errors import BadInput
from agent.records.examples import Demo, Prompt, Retrieval
from eval.tasks.prompt_file import read_prompt
from eval.tasks.task import load_config, load_task
from graphs.context import new_run

# As dspy 3.4.1 saves a ChainOfThought("question -> answer").
DEMO = {"augmented": True, "question": "Capital of France?", "reasoning": "It is known.", "answer": "Paris"}
SIGNATURE = {
    "instructions": "Answer with one {word}.",
    "fields": [
        {"prefix": "Question:", "description": "${question}"},
        {"prefix": "Reasoning:", "description": "${reasoning}"},
        {"prefix": "Answer:", "description": "${answer}"},
    ],
}
PREDICTOR: dict[str, Any] = {"traces": [], "train": [], "demos": [DEMO], "signature": SIGNATURE, "lm": None}
METADATA = {"dependency_versions": {"python": "3.11", "dspy": "3.4.1", "cloudpickle": "3.1"}}
WANTED = SeedPrompt(
    system="Answer with one {word}.", demos=(Demo(question="Capital of France?", answer="Paris"),)
)  # fmt: skip


@pytest.fixture
def given(tmp_path: Path) -> Callable[[object], Path]:
    def write(values: object) -> Path:
        (tmp_path / "given.json").write_text(values if isinstance(values, str) else json.dumps(values))
        return tmp_path / "given.json"

    return write


@pytest.mark.parametrize("program", [{"predict": PREDICTOR, "metadata": METADATA}, PREDICTOR | {"metadata": METADATA}])
def test_a_dspy_program_gives_its_instructions_and_demonstrations(
    program: object, given: Callable[[object], Path]
) -> None:
    assert read_prompt(given(program), "question", "answer") == WANTED


def test_gepas_best_candidate_is_the_system_text(given: Callable[[object], Path]) -> None:
    from gepa.core.result import GEPAResult

    result: GEPAResult[object, int] = GEPAResult(
        candidates=[{"system": "a"}, {"system": "b"}, {"system": "c"}], parents=[[None], [0], [0]],
        val_aggregate_scores=[0.1, 0.7, 0.7], val_subscores=[{0: 0.1}, {0: 0.7}, {0: 0.7}],
        per_val_instance_best_candidates={0: {1, 2}}, discovery_eval_counts=[1, 2, 3],
    )  # fmt: skip
    assert result.best_candidate == {"system": "b"}
    assert read_prompt(given(result.to_dict()), "question", "answer") == SeedPrompt(system="b")


def test_a_prompt_of_ours_comes_whole(given: Callable[[object], Path]) -> None:
    prompt = Prompt(system="S", demos=WANTED.demos, template="Q: {question}", retrieval=Retrieval(k=3))
    assert read_prompt(given(prompt.model_dump(mode="json")), "question", "answer").prompt() == prompt


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"a": PREDICTOR, "b": PREDICTOR}, r"2 predictors \(a, b\)"),
        ({"predict": PREDICTOR | {"demos": [{"frage": "?", "answer": "!"}]}}, "fields frage, answer"),
        ({"candidates": [{"a": "1", "b": "2"}], "val_aggregate_scores": [1.0]}, "has 2 parts"),
        ({"candidates": [], "val_aggregate_scores": []}, "do not belong together"),
        ({"system": "S", "temperature": 1}, "temperature"),
        ({"template": "no place"}, "must contain"),
        ([1], "no JSON object"),
        ("{", "cannot be read"),
    ],
)
def test_what_is_no_single_prompt_is_refused_with_the_reason(
    values: object, fault: str, given: Callable[[object], Path]
) -> None:
    with pytest.raises(BadInput, match=fault):
        read_prompt(given(values), "question", "answer")


def test_a_run_begins_with_it_and_holds_its_words(tiny_task: Callable[..., Path], tmp_path: Path) -> None:
    task = tiny_task(prompt={"file": "program.json"})
    (task / "program.json").write_text(json.dumps({"predict": PREDICTOR}))
    assert load_task(task).config.prompt == WANTED
    run = new_run(task, runs=tmp_path / "runs")
    (task / "program.json").unlink()
    assert load_config(run.task_file).prompt == WANTED
    assert "file" not in run.task_file.read_text().split("prompt:")[1].split("content:")[0]


def test_an_exported_prompt_begins_another_run(tiny_task: Callable[..., Path], tmp_path: Path) -> None:
    adapted = nesylora.adapt(tiny_task(), overrides=["budget.rounds=0"], runs=tmp_path / "runs")
    bundle = adapted.export(tmp_path / "bundle")
    assert load_task(tiny_task(prompt={"file": str(bundle)})).config.prompt.prompt() == adapted.prompt


@pytest.mark.parametrize(
    ("prompt", "fault"),
    [
        ({"file": "nowhere.json"}, r"task\.yaml, line \d+: the prompt .*nowhere\.json cannot be read"),
        ({"file": "a.json", "system": "S"}, "leave system, template, demos and retrieval out"),
    ],
)
def test_a_faulty_one_is_named_with_its_line(
    prompt: dict[str, str], fault: str, tiny_task: Callable[..., Path]
) -> None:
    with pytest.raises(BadInput, match=fault):
        load_task(tiny_task(prompt=prompt))
