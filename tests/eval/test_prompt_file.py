"""Seed prompts from elsewhere: of another run or a bundle, of DSPy, of GEPA."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import nesylora
from agent.config.prompt import SeedPrompt
from agent.errors import BadInput
from agent.records.examples import Demo, Prompt, Retrieval
from eval.tasks.prompt_file import read_prompt
from eval.tasks.task import load_config, load_task
from graphs.context import new_run
from ui.cli import run as command

CASES = Path(__file__).parents[1] / "cases" / "prompts"

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


@pytest.mark.parametrize(
    ("file", "system", "answers"),
    [
        ("dspy-3.4.1-chain-of-thought", "Answer with one {word}, in capitals.", ["Paris", "Madrid", "Lima"]),
        ("dspy-3.4.1-predict", "Answer with one {word}, in capitals.", ["Lima", "Madrid"]),
        ("gepa-0.1.4-result", 'Name the {city}: "only" it.', []),
    ],
)
def test_what_the_packages_themselves_wrote_is_read(file: str, system: str, answers: list[str]) -> None:
    """Written by their own `save` after `BootstrapFewShot` and `LabeledFewShot`, and by a run of `gepa.optimize`."""
    prompt = read_prompt(CASES / f"{file}.json", "question", "answer").prompt()
    assert (prompt.system, [demo.answer for demo in prompt.demos]) == (system, answers)


def test_a_dspy_program_of_two_steps_is_refused() -> None:
    with pytest.raises(BadInput, match=r"2 predictors \(first, second\)"):
        read_prompt(CASES / "dspy-3.4.1-two-predictors.json", "question", "answer")


@pytest.mark.parametrize(
    ("file", "way"), [("program.pkl", "program.save"), ("gepa_state.bin", "result.to_dict"), ("x", "prompt.json")]
)
def test_a_folder_of_theirs_is_refused_with_the_file_to_take(file: str, way: str, tmp_path: Path) -> None:
    (tmp_path / file).touch()
    with pytest.raises(BadInput, match=way):
        read_prompt(tmp_path, "question", "answer")


def test_a_program_and_chats_make_a_run_by_the_command_line(
    tiny_model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenAI's fine-tuning file through `init`, and the prompt of a DSPy program over its rows."""
    monkeypatch.chdir(tmp_path)
    chats = [
        [{"role": "user", "content": f"Capital of land {n}?"}, {"role": "assistant", "content": f"City {n % 5}"}]
        for n in range(20)
    ]
    Path("chats.jsonl").write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    begun = ["init", "chats.jsonl", "--yes", "--no-try", "--into", "cities", "--model", str(tiny_model("llama"))]
    assert command(begun) == 0
    settings = yaml.safe_load(Path("cities/task.yaml").read_text())
    del settings["prompt"]
    settings["start"] = {"prompt": str(CASES / "dspy-3.4.1-chain-of-thought.json")}
    Path("cities/task.yaml").write_text(yaml.safe_dump(settings))
    quick = ["--set", "budget.rounds=0", "--set", "generation.max_new_tokens=4", "--set", "recall.prompts=0"]
    assert command(["run", "cities", "--name", "on", *quick]) in (4, 5)
    prompt = nesylora.resume("runs/on").prompt
    assert prompt.system == "Answer with one {word}, in capitals." and len(prompt.demos) == 3


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
