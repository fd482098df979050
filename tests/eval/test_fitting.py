"""Rows that the model's window has no room for are told, refused or left out; ends of turns are taken off answers."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import nesylora
from agent.errors import BadInput
from agent.records.evaluation import Evaluation, ExampleScore, Fitting
from agent.records.events import Note
from agent.records.examples import Candidate, Example, Prompt
from agent.records.rounds import Verdict
from eval.tasks.fitting import fitted, measure, remarks
from eval.tasks.task import Task, load_task
from graphs.context import new_run
from graphs.nodes.judge import with_remarks
from graphs.session import open_session
from memory.run.folder import RunFolder
from ui.report.write import write_report

LONG = "Who is the mayor of Tallisk? " * 200


class Words:
    """A token a word."""

    ends = ("<|im_end|>", "</s>")

    def prompt_ids(self, prompt: Prompt, example: Example) -> Sequence[int]:
        return [0] * len(f"{prompt.system} {prompt.ask(example.question)}".split())


@pytest.fixture
def make(tiny_task: Callable[..., Path]) -> Callable[..., Path]:
    """A task in which the rows of these names are far too long for the tiny model."""

    def task(*long: str, fate: str | None = None, **changes: Any) -> Path:
        data: dict[str, Any] = {split: f"{split}.jsonl" for split in ("train", "validation", "test")}
        folder = tiny_task(data=data | ({"too_long": fate} if fate else {}), **changes)
        for name in long:
            split, line = name.split(":")
            file = folder / f"{split}.jsonl"
            rows = [json.loads(row) for row in file.read_text().splitlines()]
            rows[int(line) - 1]["question"] = LONG + line
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return folder

    return task


def names(task: Task) -> list[list[str]]:
    return [[row.name.split(":")[1] for row in rows] for rows in (task.train, task.validation, task.test)]


def test_long_rows_are_refused_by_default_with_their_number_before_weights_are_read(
    make: Callable[..., Path], tmp_path: Path, tiny_model: Callable[[str], Path]
) -> None:
    shutil.copytree(tiny_model("llama"), tmp_path / "hollow")
    (tmp_path / "hollow" / "model.safetensors").unlink()
    folder = make("validation:2", "test:1", "test:4", model=str(tmp_path / "hollow"))
    with pytest.raises(BadInput) as told:
        nesylora.adapt(folder, runs=tmp_path / "runs")
    assert "1 of 4 validation rows and 2 of 4 test rows do not fit into the 1024 tokens" in str(told.value)
    assert "validation:2 (" in str(told.value) and "data.too_long to leave_out" in str(told.value)


@pytest.mark.parametrize(("fate", "counts"), [("leave_out", (3, 2)), ("wrong", (4, 4))])
def test_a_run_leaves_them_out_or_counts_them_as_wrong_and_says_so(
    fate: str, counts: tuple[int, int], make: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make("validation:2", "test:1", "test:4", fate=fate, budget={"rounds": 0})
    run = RunFolder.open(nesylora.adapt(folder, runs=tmp_path / "runs").run)
    outcome, first = run.outcome(), run.baseline()
    assert outcome and first
    scores = run.load(first.seed, "validation").scores.values()
    assert (len(scores), outcome.best_test.rows) == counts
    left = "are left out" if fate == "leave_out" else "count as wrong"
    told = [note.text for note in run.events().of(Note)]
    assert any("1 of 4 validation rows and 2 of 4 test rows are too long" in text and left in text for text in told)
    assert outcome.best_test.too_long == (0 if fate == "leave_out" else 2)
    assert sum(score.too_long for score in scores) == (0 if fate == "leave_out" else 1)
    for page in (write_report(run), run.report_md):
        assert "3 validation and test rows (validation:2, test:1, test:4)" in page.read_text()


def test_what_is_left_out_is_left_out_after_a_resume_and_in_the_same_place(make: Callable[..., Path]) -> None:
    task = load_task(make("validation:2", "test:1", fate="leave_out"))
    fitting = measure(task, Words(), 200)
    again = fitted(task, Fitting.model_validate_json(fitting.model_dump_json()))
    assert names(again) == [["1", "2", "3", "4"], ["1", "3", "4"], ["2", "3", "4"]]
    assert again.digest == task.digest, "the data have not changed"


def test_a_split_of_which_nothing_is_left_is_refused(make: Callable[..., Path]) -> None:
    task = load_task(make(*[f"test:{line}" for line in (1, 2, 3, 4)], fate="leave_out"))
    with pytest.raises(BadInput, match=r"4 of 4 test rows do not fit.*No row of a split would be left"):
        measure(task, Words(), 200)


def test_a_window_without_end_and_rows_that_just_fit_leave_a_task_as_it_is(make: Callable[..., Path]) -> None:
    task = load_task(make())
    longest = max(len(Words().prompt_ids(task.config.prompt.prompt(), row)) for row in task.validation + task.test)
    fitting = measure(task, Words(), longest + task.config.generation.max_new_tokens)
    assert fitted(task, fitting) is task and not remarks(task, fitting)
    with pytest.raises(BadInput, match="do not fit"):
        measure(task, Words(), longest + task.config.generation.max_new_tokens - 1)


def test_the_models_own_end_of_turn_is_taken_off_the_answers(tiny_task: Callable[..., Path]) -> None:
    task = load_task(tiny_task(answer="Heskzan <|im_end|>\n"))
    fitting = measure(task, Words(), 999)
    assert fitting.ends == ("<|im_end|>",)
    clean = fitted(task, fitting)
    assert {row.answer for row in (*clean.train, *clean.validation, *clean.test)} == {"Heskzan"}
    [said] = remarks(task, fitting)
    assert said.startswith("12 answers hold <|im_end|>")


def test_rows_whose_answer_is_only_the_models_end_are_refused_or_left_out_by_name(
    tiny_task: Callable[..., Path],
) -> None:
    """Every output would contain their answer."""
    folder = tiny_task()

    def end(split: str, *lines: int, answer: str = "<|im_end|>") -> None:
        rows = [json.loads(row) for row in (folder / f"{split}.jsonl").read_text().splitlines()]
        for line in lines:
            rows[line - 1]["answer"] = answer
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    end("train", 2)
    end("test", 1, answer=" </s><|im_end|>\n")
    end("test", 4, answer="<think>Who?</think> <|im_end|>")
    with pytest.raises(BadInput) as told:
        measure(load_task(folder), Words(), 999)
    assert str(told.value) == (
        "3 rows (train:2, test:1, test:4), whose answers are nothing but <|im_end|> and </s>, which ends a turn of "
        "this model by itself, cannot be used: mend them, or set data.skip_invalid: true to leave them out."
    )
    task = load_task(folder, ["data.skip_invalid=true"])
    fitting = Fitting.model_validate_json(measure(task, Words(), 999).model_dump_json())
    assert names(fitted(task, fitting)) == [["1", "3", "4"], ["1", "2", "3", "4"], ["2", "3"]]
    assert remarks(task, fitting)[-1].startswith("3 rows (train:2, test:1, test:4), whose answers are nothing but")
    of_old = fitting.model_copy(update={"emptied": ()})
    assert names(fitted(task, of_old))[0] == ["1", "2", "3", "4"], "a run that began with such rows goes on with them"
    end("test", 2)
    with pytest.raises(BadInput, match="more than half of a split: too many to leave out"):
        measure(load_task(folder, ["data.skip_invalid=true"]), Words(), 999)


def test_the_seed_prompts_demonstrations_are_rid_of_ends_too(tiny_task: Callable[..., Path]) -> None:
    def shown(*answers: str) -> Task:
        demos = [{"question": "Who?", "answer": answer} for answer in answers]
        return load_task(tiny_task(prompt={"system": "Answer the question.", "demos": demos}))

    task = shown("Heskzan", "Gallune<|im_end|>\n")
    fitting = Fitting.model_validate_json(measure(task, Words(), 999).model_dump_json())
    assert [demo.answer for demo in fitted(task, fitting).config.prompt.prompt().demos] == ["Heskzan", "Gallune"]
    [said] = remarks(task, fitting)
    assert said.startswith("The demonstrations of the seed prompt hold <|im_end|>")
    with pytest.raises(BadInput, match=r"Demonstration 2 of prompt.demos answers with nothing but <\|im_end\|>"):
        measure(shown("Heskzan", "<|im_end|>"), Words(), 999)


def test_a_run_says_that_the_models_chat_template_opens_thoughts(
    tiny_task: Callable[..., Path], tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    thinking = shutil.copytree(tiny_model("llama"), tmp_path / "thinking")
    template = thinking / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}"))
    folder = tiny_task(model=str(thinking), budget={"rounds": 0})
    run = RunFolder.open(nesylora.adapt(folder, runs=tmp_path / "runs").run)
    told = [note.text for note in run.events().of(Note)]
    assert any("Warning: the model's chat template opens thoughts (<think>)" in text for text in told)


def test_rows_that_a_longer_prompt_pushes_out_are_its_failure_and_the_verdict_tells() -> None:
    def scored(*too_long: bool) -> Evaluation:
        scores = [
            ExampleScore(example=f"v:{n}", output="", content=float(not long), style=float(not long), too_long=long)
            for n, long in enumerate(too_long)
        ]
        return Evaluation(candidate=Candidate(prompt="p"), split="validation", scores=tuple(scores))

    verdict = Verdict(kept=False, reason="It fell.", before=1, after=0.5, p_value=1)
    before, after = scored(True, False, False), scored(True, True, True)
    assert "2 rows no longer fit into the model's window" in with_remarks(verdict, before, after).reason
    assert with_remarks(verdict, after, before) == verdict == with_remarks(verdict, before, before)


def test_a_task_that_is_refused_leaves_no_run_in_the_way(tiny_task: Callable[..., Path], tmp_path: Path) -> None:
    """What is mended then can be run under the same name, and `resume` finds no empty run."""
    folder, root = tiny_task(), tmp_path / "runs"
    rows = (folder / "validation.jsonl").read_text()
    (folder / "validation.jsonl").write_text(rows + json.dumps({"question": LONG, "answer": "No"}) + "\n")
    refused = new_run(folder, runs=root, name="mayors")
    with pytest.raises(BadInput, match="do not fit"), open_session(refused) as session:
        session.go()
    assert not (root / "mayors").exists()
    (folder / "validation.jsonl").write_text(rows)
    run = new_run(folder, ["budget.rounds=0"], root, "mayors")
    with open_session(run) as session:
        session.go()
    with pytest.raises(BadInput), open_session(run) as session:
        raise BadInput("said of a run that has been measured")
    assert run.outcome() is not None
