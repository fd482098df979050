"""The runner against a stand-in for the model, a real task folder and a real run folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.errors import LlmUnavailable, NesyLoraError
from agent.protocols import Asked, Rating, StopEarly
from agent.records.evaluation import Evaluation
from agent.records.examples import Candidate, Example, Prompt
from agent.records.rounds import Spend
from eval.runner import Runner
from eval.tasks.task import load_task
from memory.run.folder import RunFolder

TASK = """
name: capitals
data: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl}
content: [{kind: contains}]
style: [{kind: starts_with, text: "ANSWER: "}]
generation: {max_new_tokens: 7}
"""
PROMPTS = {"plain": Prompt(), "formed": Prompt(system="Start with ANSWER: ")}
PLAIN = Candidate(prompt="plain")


class Parrot:
    """Knows every answer once it has an adapter, and the form once the prompt names it."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[str], str | None, int]] = []
        self.calls: list[int] = []  # how many prompts each call named
        self.scored: list[list[str]] = []

    def generate(
        self,
        prompt: Prompt,
        examples: Sequence[Example],
        *,
        adapter: str | None,
        max_new_tokens: int,
        stop_early: StopEarly | None = None,
    ) -> tuple[list[str], Spend]:
        self.asked.append(([example.name for example in examples], adapter, max_new_tokens))
        form = "ANSWER: " if "ANSWER" in prompt.system else ""
        return [form + (example.answer if adapter else "no idea") for example in examples], Spend()

    def generate_each(self, asked: Sequence[Asked], **options: Any) -> list[tuple[list[str], Spend]]:
        self.calls.append(len(asked))
        return [self.generate(*each, **options) for each in asked]

    def nll(
        self, _: Prompt, examples: Sequence[Example], completions: Sequence[tuple[str, str]], *, adapter: str | None
    ) -> tuple[list[float], Spend]:
        self.scored.append([scored for _, scored in completions])
        return [len(example.name) + (0.0 if adapter else 0.5) for example in examples], Spend()

    @property
    def answered(self) -> list[str]:
        """The rows it was asked to answer, in order."""
        return [name for names, _, _ in self.asked for name in names]


@pytest.fixture
def model() -> Parrot:
    return Parrot()


@pytest.fixture
def task(tmp_path: Path) -> Path:
    (tmp_path / "task.yaml").write_text(TASK)
    for split in ("train", "validation", "test"):
        rows = [f'{{"question": "{split} {n}?", "answer": "city {n}"}}\n' for n in range(4)]
        (tmp_path / f"{split}.jsonl").write_text("".join(rows))
    return tmp_path


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, "capitals", "", source=tmp_path, digest="0" * 12, name="run")


@pytest.fixture
def runner(task: Path, model: Parrot, run: RunFolder) -> Runner:
    return Runner(load_task(task), model, PROMPTS.__getitem__, run)


def test_prompt_and_adapter_reach_the_model_and_the_scores_come_back(runner: Runner, model: Parrot) -> None:
    evaluation = runner(Candidate(prompt="formed", adapter="a1"), "validation")
    assert model.asked == [([f"validation:{line}" for line in (1, 2, 3, 4)], "a1", 7)]
    assert [score.output for score in evaluation.scores] == [f"ANSWER: city {n}" for n in range(4)]
    assert (evaluation.split, evaluation.content, evaluation.style, evaluation.reward) == ("validation", 1, 1, 1)


def test_each_factor_is_distinguished(runner: Runner) -> None:
    plain = runner(Candidate(prompt="plain", adapter="a1"), "validation")
    assert (plain.content, plain.style, plain.reward) == (1, 0, 0)
    assert "must start with" in plain.scores[0].faults[0]
    formed = runner(Candidate(prompt="formed"), "validation")
    assert (formed.content, formed.style, formed.reward) == (0, 1, 0)


def test_a_second_look_is_served_from_the_store(runner: Runner, model: Parrot) -> None:
    assert runner(PLAIN, "validation") == runner(PLAIN, "validation")
    assert len(model.asked) == 1


def test_another_adapter_under_the_same_prompt_is_scored_anew(runner: Runner) -> None:
    before = runner(PLAIN, "validation")
    after = runner(Candidate(prompt="plain", adapter="a1"), "validation")
    assert (before.content, after.content) == (0, 1)


def test_several_candidates_are_answered_in_one_call_for_each_adapter_and_scored_as_one_by_one(
    task: Path, runner: Runner, model: Parrot, tmp_path: Path
) -> None:
    pairs = [Candidate(prompt=prompt, adapter=adapter) for adapter in (None, "a1") for prompt in PROMPTS]
    found = runner.each([*pairs, pairs[1]], "validation", VALIDATION[:2])
    assert model.calls == [2, 2]
    other = RunFolder.create(tmp_path / "other", "capitals", "", source=task, digest="0" * 12, name="run")
    alone = Runner(load_task(task), Parrot(), PROMPTS.__getitem__, other)
    assert found == [alone(pair, "validation", VALIDATION[:2]) for pair in [*pairs, pairs[1]]]


def test_of_several_candidates_only_what_is_not_known_is_asked(runner: Runner, model: Parrot) -> None:
    formed, tuned = Candidate(prompt="formed"), Candidate(prompt="plain", adapter="a1")
    runner(PLAIN, "validation", VALIDATION[:3])
    runner(tuned, "validation")
    model.asked.clear()
    runner.each([PLAIN, formed, tuned], "validation")
    assert [(names, adapter) for names, adapter, _ in model.asked] == [(VALIDATION[3:], None), (VALIDATION, None)]


@pytest.mark.parametrize(("split", "names"), [("test", None), ("train", [])])
def test_several_candidates_open_no_sealed_split_either(runner: Runner, split: Any, names: Any) -> None:
    with pytest.raises(ValueError, match=r"sealed|at least one row"):
        runner.each([PLAIN], split, names)


NAMES = [f"train:{line}" for line in (1, 2, 3, 4)]
VALIDATION = [f"validation:{line}" for line in (1, 2, 3, 4)]


@given(asked=st.lists(st.none() | st.lists(st.sampled_from(NAMES), min_size=1, unique=True), min_size=1, max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_row_is_generated_once_whatever_is_asked_for_first(task: Path, asked: list[list[str] | None]) -> None:
    model = Parrot()
    run = RunFolder.create(task, "capitals", "", source=task, digest="0" * 12)
    runner = Runner(load_task(task), model, PROMPTS.__getitem__, run)
    for names in asked:
        assert [score.example for score in runner(PLAIN, "train", names).scores] == (names or NAMES)
    assert sorted(model.answered) == sorted({name for names in asked for name in names or NAMES})


@pytest.mark.parametrize(
    ("file", "old", "new", "anew"),
    [
        ("train.jsonl", "train 2", "another", ["train:3"]),
        ("train.jsonl", "city 0", "town 0", ["train:1"]),
        ("task.yaml", "contains", "exact", ["train:1", "train:2", "train:3", "train:4"]),
        ("task.yaml", "max_new_tokens: 7", "max_new_tokens: 8", ["train:1", "train:2", "train:3", "train:4"]),
        ("task.yaml", "name: capitals", "name: cities", []),
    ],
)
def test_only_what_changes_an_answer_or_its_score_is_measured_anew(
    task: Path, model: Parrot, run: RunFolder, file: str, old: str, new: str, anew: list[str]
) -> None:
    def asked_with(text: str) -> list[str]:
        """The rows that are generated while the file says this."""
        model.asked.clear()
        (task / file).write_text(text)
        Runner(load_task(task), model, PROMPTS.__getitem__, run)(PLAIN, "train")
        return model.answered

    before = (task / file).read_text()
    asked_with(before)
    assert asked_with(before.replace(old, new)) == anew
    assert asked_with(before) == []


def test_scores_of_older_runs_can_be_read_and_are_measured_anew(runner: Runner, model: Parrot, run: RunFolder) -> None:
    """They stood in a list and named their row only, not what it held."""
    scores = runner(PLAIN, "validation").scores
    old = Evaluation(candidate=PLAIN, split="validation", scores=scores[:2])
    [file] = run.path.glob("evaluations/*")
    file.write_text(old.model_dump_json())
    assert tuple(run.load(PLAIN, "validation").scores.values()) == scores[:2]
    model.asked.clear()
    assert runner(PLAIN, "validation").scores == scores
    assert len(model.answered) == 4


def test_a_kill_while_rows_are_generated_leaves_what_was_known(runner: Runner, model: Parrot, run: RunFolder) -> None:
    runner(PLAIN, "train", NAMES[:2])
    known = run.load(PLAIN, "train")
    model.generate = cut_off  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        runner(PLAIN, "train")
    assert run.load(PLAIN, "train") == known
    assert len(runner(PLAIN, "train", NAMES[:2]).scores) == 2


def cut_off(*_: object, **__: object) -> list[str]:
    raise KeyboardInterrupt


def test_without_its_judge_what_was_judged_before_is_kept(task: Path, model: Parrot, run: RunFolder) -> None:
    judge = "content: [{kind: contains}, {kind: judge, rubric: Right.}]\nllm: {model: judge-1}"
    (task / "task.yaml").write_text(TASK.replace("content: [{kind: contains}]", judge))
    moody = Moody(patience=1)
    runner = Runner(load_task(task, rater=lambda _: moody), model, PROMPTS.__getitem__, run)
    formed = Candidate(prompt="formed")
    with pytest.raises(NesyLoraError, match="4 rows could not be judged"):
        runner.each([PLAIN, formed], "train")
    assert (len(run.load(PLAIN, "train").scores), len(run.load(formed, "train").scores)) == (4, 0)


def test_the_reference_nll_of_a_pair_is_measured_once(runner: Runner, model: Parrot) -> None:
    tuned = Candidate(prompt="plain", adapter="a1")
    assert runner.reference_nll(PLAIN, VALIDATION) == runner.reference_nll(PLAIN, VALIDATION) == [12.5] * 4
    assert runner.reference_nll(tuned, VALIDATION) == [12.0] * 4
    assert runner.reference_nll(tuned, VALIDATION[1:3]) == [12.0] * 2
    assert model.scored == [[f"ANSWER: city {n}" for n in range(4)]] * 2
    assert runner(PLAIN, "validation").content == 0  # kept beside the scores, in the way of neither
    assert runner.reference_nll(PLAIN, VALIDATION) == [12.5] * 4 and len(model.scored) == 2


def test_the_zeros_of_older_runs_are_measured_anew(runner: Runner, model: Parrot, run: RunFolder) -> None:
    """In them, 0 also stood for a row that did not fit into the model's window."""
    runner.reference_nll(PLAIN, VALIDATION)
    [file] = run.path.glob("evaluations/*")
    file.write_text(file.read_text().replace("12.5", "0.0", 1))
    assert runner.reference_nll(PLAIN, VALIDATION) == [12.5] * 4
    assert [len(scored) for scored in model.scored] == [4, 1]


def test_a_row_that_does_not_fit_is_wrong_and_reported_whatever_the_scorers_give_no_answer(
    task: Path, model: Parrot, run: RunFolder
) -> None:
    (task / "task.yaml").write_text(TASK.replace('{kind: starts_with, text: "ANSWER: "}', "{kind: words, most: 9}"))
    say = model.generate
    model.generate = lambda *args, **kwargs: ([None, *say(*args, **kwargs)[0][1:]], Spend())  # type: ignore[assignment, misc]
    model.nll = lambda *args, **kwargs: ([None, 2.0, 2.0, 2.0], Spend())  # type: ignore[assignment, method-assign]
    runner = Runner(load_task(task), model, PROMPTS.__getitem__, run)
    evaluation = runner(Candidate(prompt="formed", adapter="a1"), "validation")
    assert [(score.content, score.style, score.too_long) for score in evaluation.scores] == [(0, 0, True)] + [
        (1, 1, False)
    ] * 3
    assert evaluation.too_long == 1 and "too long for the model's window" in evaluation.scores[0].faults[0]
    measured = [runner.reference_nll(PLAIN, VALIDATION) for _ in range(2)]
    assert measured == [[None, 2.0, 2.0, 2.0]] * 2, "kept as what it is"


def test_the_test_split_is_sealed(runner: Runner, model: Parrot) -> None:
    with pytest.raises(ValueError, match="sealed"):
        runner(PLAIN, "test")
    assert model.asked == []
    opened = runner.open_test(PLAIN)
    assert [score.example for score in opened.scores] == [f"test:{line}" for line in (1, 2, 3, 4)]


def test_no_rows_cannot_be_asked_for(runner: Runner) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        runner(PLAIN, "train", [])
    with pytest.raises(KeyError, match="train:9"):
        runner(PLAIN, "train", ["train:9"])


# --- with a judge --------------------------------------------------------------------------------


class Moody:
    """A judge who answers so many times, and then is away."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.asked: list[int] = []

    def rate(self, answered: Sequence[tuple[Example, str]]) -> list[Rating]:
        self.asked.append(len(answered))
        if len(self.asked) > self.patience:
            raise LlmUnavailable("judge-1 did not answer (HTTP 500)")
        return [Rating(0.75, "Nearly.")] * len(answered)


def test_without_its_judge_nothing_is_stored_and_the_next_step_is_named(
    task: Path, model: Parrot, run: RunFolder
) -> None:
    judge = "content: [{kind: contains}, {kind: judge, rubric: Right.}]\nllm: {model: judge-1}"
    (task / "task.yaml").write_text(TASK.replace("content: [{kind: contains}]", judge))
    moody = Moody(patience=1)
    runner = Runner(load_task(task, rater=lambda _: moody), model, PROMPTS.__getitem__, run)
    assert runner(PLAIN, "train", NAMES[:2]).content == 0.375
    known = run.load(PLAIN, "train")
    with pytest.raises(
        NesyLoraError, match=r"2 rows could not be judged: judge-1 did not answer .* nesylora resume"
    ) as e:
        runner(PLAIN, "train")
    assert not isinstance(e.value, LlmUnavailable)  # which means: the rules go on without it
    assert run.load(PLAIN, "train") == known
    moody.patience = 9
    assert [score.remarks for score in runner(PLAIN, "train").scores] == [("Nearly.",)] * 4
    assert moody.asked == [2, 2, 2]
