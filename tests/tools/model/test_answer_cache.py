"""Answers and adapters that runs have in common: the same as computed, charged as computed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.records.examples import Example, Prompt
from memory.replies import ReplyStore
from memory.run.pool import Pool
from tools.model.answer_cache import CachedLanguageModel
from tools.model.backbone import Backbone

PROMPT = Prompt(system="Answer the question.")
ROWS = [Example(name=f"train:{n}", question=f"Who is the mayor of {n}?", answer="Heskzan") for n in range(5)]


class Clock:
    """Ten seconds later every time it is read."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 10
        return self.now


def asked(model: Any, rows: list[Example] = ROWS) -> list[str]:
    answers: list[str] = model.generate(PROMPT, rows, adapter=None, max_new_tokens=4)
    return answers


def no_model() -> Any:
    raise AssertionError("the model was wanted")


@pytest.fixture
def replies(tmp_path: Path) -> ReplyStore:
    return ReplyStore(tmp_path / "answers.sqlite")


def test_what_was_asked_before_is_answered_and_charged_without_the_model(
    backbone: Callable[..., Backbone], replies: ReplyStore
) -> None:
    ours = backbone()
    first = CachedLanguageModel(lambda: ours, replies, ["tiny"], Clock(), "scorers")
    again = CachedLanguageModel(no_model, replies, ["tiny"], Clock(), "scorers")
    assert asked(first) == asked(ours) == asked(again)
    assert again.generated_tokens == first.generated_tokens == pytest.approx(ours.generated_tokens / 2)
    assert again.read_tokens == first.read_tokens == pytest.approx(ours.read_tokens / 2) and again.read_tokens > 0
    assert (first.spared_seconds, again.spared_seconds) == (0, pytest.approx(10))


def test_only_the_rows_that_are_new_are_computed(backbone: Callable[..., Backbone], replies: ReplyStore) -> None:
    ours = backbone()
    model = CachedLanguageModel(lambda: ours, replies, ["tiny"], Clock(), "scorers")
    asked(model, ROWS[:3])
    before = ours.generated_tokens
    assert asked(model) == asked(backbone())
    assert ours.generated_tokens - before <= 2 * 5, "two new rows of four tokens, and what ends them"


def test_likelihoods_are_kept_too(backbone: Callable[..., Backbone], replies: ReplyStore) -> None:
    ours, completions = backbone(), [("ANSWER: ", "Heskzan")] * len(ROWS)
    computed = ours.nll(PROMPT, ROWS, completions, adapter=None)
    CachedLanguageModel(lambda: ours, replies, ["tiny"], Clock(), "scorers").nll(
        PROMPT, ROWS, completions, adapter=None
    )
    kept = CachedLanguageModel(no_model, replies, ["tiny"], Clock(), "scorers")
    assert kept.nll(PROMPT, ROWS, completions, adapter=None) == computed
    assert kept.generated_tokens == 0 < kept.read_tokens


@pytest.mark.parametrize(
    "other",
    [
        {"adapter": "a"},
        {"max_new_tokens": 5},
        {"stop_early": lambda example, text: False},
        {"prompt": Prompt()},
        {"rows": [row.model_copy(update={"system": "Be brief."}) for row in ROWS]},
    ],
)
def test_whatever_shapes_an_answer_is_asked_anew(
    backbone: Callable[..., Backbone], replies: ReplyStore, other: dict[str, Any]
) -> None:
    ours = backbone()
    asked(CachedLanguageModel(lambda: ours, replies, ["tiny"], Clock(), "scorers"))
    given: dict[str, Any] = {"prompt": PROMPT, "adapter": None, "max_new_tokens": 4} | other
    with pytest.raises(AssertionError, match="the model was wanted"):
        CachedLanguageModel(no_model, replies, ["tiny"], Clock(), "scorers").generate(
            given.pop("prompt"), given.pop("rows", ROWS), **given
        )


def test_an_answer_that_one_tasks_scorers_cut_off_is_none_to_anothers(
    backbone: Callable[..., Backbone], replies: ReplyStore
) -> None:
    """While answers that nothing can cut off are the same whoever scores them."""
    ours, given = backbone(), {"adapter": None, "max_new_tokens": 6}
    brief = CachedLanguageModel(lambda: ours, replies, ["tiny"], Clock(), "brief")
    patient = CachedLanguageModel(lambda: ours, replies, ["tiny"], Clock(), "patient")
    short = brief.generate(PROMPT, ROWS, stop_early=lambda row, text: bool(text), **given)
    long = patient.generate(PROMPT, ROWS, stop_early=lambda row, text: False, **given)
    assert long == ours.generate(PROMPT, ROWS, **given) != short
    again = CachedLanguageModel(no_model, replies, ["tiny"], Clock(), "brief")
    assert again.generate(PROMPT, ROWS, stop_early=lambda row, text: bool(text), **given) == short
    brief.generate(PROMPT, ROWS, **given)
    assert CachedLanguageModel(no_model, replies, ["tiny"], Clock(), "patient").generate(PROMPT, ROWS, **given) == long


def test_an_answer_that_ended_early_for_one_reference_is_none_to_another(
    backbone: Callable[..., Backbone], replies: ReplyStore
) -> None:
    model = CachedLanguageModel(backbone, replies, ["tiny"], Clock(), "scorers")
    one, other = (ROWS[0].model_copy(update={"answer": answer}) for answer in ("short", "long"))
    short, long = model.generate(
        PROMPT, [one, other], adapter=None, max_new_tokens=6, stop_early=lambda row, text: row.answer == "short"
    )
    assert len(short) < len(long)


def test_an_adapter_is_lent_whole_and_borrowed_as_it_was(tmp_path: Path) -> None:
    made, other = tmp_path / "one" / "0123", tmp_path / "two" / "0123"
    made.mkdir(parents=True)
    other.parent.mkdir()
    (made / "adapter_model.safetensors").write_bytes(b"weights")
    pool = Pool(tmp_path / "pool")
    pool.lend("0123", made)
    pool.borrow("0123", other)
    assert not other.exists(), "it was not complete"
    (made / "complete").touch()
    pool.lend("0123", made)
    pool.borrow("0123", other)
    assert (other / "adapter_model.safetensors").read_bytes() == b"weights"
    assert (other / "complete").is_file()
