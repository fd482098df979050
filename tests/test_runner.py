"""The runner against a tiny model, a real task folder and a store in memory."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.records import Candidate, Evaluation, Example, Prompt, Split
from eval.runner import Runner
from eval.tasks import load_task

TASK = """
name: capitals
data: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl}
content: [{kind: contains}]
style: [{kind: starts_with, text: "ANSWER: "}]
generation: {max_new_tokens: 7}
"""
PROMPTS = {"plain": Prompt(), "formed": Prompt(system="Start with ANSWER: ")}


class Parrot:
    """Knows every answer once it has an adapter, and the form once the prompt names it."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[str], str | None, int]] = []

    def generate(
        self, prompt: Prompt, examples: Sequence[Example], *, adapter: str | None, max_new_tokens: int
    ) -> list[str]:
        self.asked.append(([example.name for example in examples], adapter, max_new_tokens))
        form = "ANSWER: " if "ANSWER" in prompt.system else ""
        return [form + (example.answer if adapter else "no idea") for example in examples]

    def nll(self, *_: object, **__: object) -> list[float]:
        raise AssertionError("the runner measures no likelihoods")


class Shelf:
    """An EvaluationStore in memory."""

    def __init__(self) -> None:
        self.kept: dict[tuple[Candidate, Split, int | None], Evaluation] = {}

    def load(self, candidate: Candidate, split: Split, limit: int | None) -> Evaluation | None:
        return self.kept.get((candidate, split, limit))

    def save(self, evaluation: Evaluation, limit: int | None) -> None:
        self.kept[evaluation.candidate, evaluation.split, limit] = evaluation


@pytest.fixture
def model() -> Parrot:
    return Parrot()


@pytest.fixture
def runner(tmp_path: Path, model: Parrot) -> Runner:
    (tmp_path / "task.yaml").write_text(TASK)
    for split in ("train", "validation", "test"):
        rows = [f'{{"question": "{split} {n}?", "answer": "city {n}"}}\n' for n in range(4)]
        (tmp_path / f"{split}.jsonl").write_text("".join(rows))
    return Runner(load_task(tmp_path), model, PROMPTS.__getitem__, Shelf())


def test_prompt_and_adapter_reach_the_model_and_the_scores_come_back(runner: Runner, model: Parrot) -> None:
    evaluation = runner(Candidate(prompt="formed", adapter="a1"), "validation")
    assert model.asked == [([f"validation:{line}" for line in (1, 2, 3, 4)], "a1", 7)]
    assert [score.output for score in evaluation.scores] == [f"ANSWER: city {n}" for n in range(4)]
    assert (evaluation.split, evaluation.content, evaluation.style, evaluation.reward) == ("validation", 1, 1, 1)


def test_each_factor_is_told_apart(runner: Runner) -> None:
    plain = runner(Candidate(prompt="plain", adapter="a1"), "validation")
    assert (plain.content, plain.style, plain.reward) == (1, 0, 0)
    assert "must start with" in plain.scores[0].faults[0]
    formed = runner(Candidate(prompt="formed"), "validation")
    assert (formed.content, formed.style, formed.reward) == (0, 1, 0)


def test_a_second_look_is_served_from_the_store(runner: Runner, model: Parrot) -> None:
    candidate = Candidate(prompt="plain")
    assert runner(candidate, "validation") == runner(candidate, "validation")
    assert len(model.asked) == 1


def test_another_adapter_under_the_same_prompt_is_scored_anew(runner: Runner) -> None:
    before = runner(Candidate(prompt="plain"), "validation")
    after = runner(Candidate(prompt="plain", adapter="a1"), "validation")
    assert (before.content, after.content) == (0, 1)


def test_a_limit_takes_the_first_rows_and_does_not_pass_for_the_whole(runner: Runner, model: Parrot) -> None:
    candidate = Candidate(prompt="plain")
    names = [score.example for score in runner(candidate, "train", 2).scores]
    assert names == ["train:1", "train:2"]
    runner(candidate, "train", 2)
    assert len(model.asked) == 1
    assert len(runner(candidate, "train").scores) == 4


def test_a_limit_is_served_from_the_whole_and_one_past_the_end_is_the_whole(runner: Runner, model: Parrot) -> None:
    candidate = Candidate(prompt="plain")
    whole = runner(candidate, "train", 99)
    assert runner(candidate, "train").scores == whole.scores
    assert runner(candidate, "train", 3).scores == whole.scores[:3]
    assert len(model.asked) == 1


def test_the_test_split_is_sealed(runner: Runner, model: Parrot) -> None:
    with pytest.raises(ValueError, match="sealed"):
        runner(Candidate(prompt="plain"), "test")
    assert model.asked == []
    opened = runner.open_test(Candidate(prompt="plain"))
    assert [score.example for score in opened.scores] == [f"test:{line}" for line in (1, 2, 3, 4)]


def test_no_rows_cannot_be_asked_for(runner: Runner) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        runner(Candidate(prompt="plain"), "train", 0)
