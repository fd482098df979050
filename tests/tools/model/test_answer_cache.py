"""Answers and adapters that runs have in common: the same as computed, charged as computed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.protocols import Asked, LanguageModel
from agent.records.examples import Demo, Example, Prompt
from agent.records.rounds import Spend
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


def asked(model: LanguageModel, rows: list[Example] = ROWS) -> tuple[Sequence[str | None], Spend]:
    return model.generate(PROMPT, rows, adapter=None, max_new_tokens=4)


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
    computed, wanted = asked(first), asked(ours)
    assert computed == wanted and wanted[1].read_tokens > 0 and wanted[1].generated_tokens > 0
    answers, spend = asked(again)
    assert answers == wanted[0]
    assert spend == wanted[1].model_copy(update={"seconds": pytest.approx(10)})


def test_only_the_rows_that_are_new_are_computed(backbone: Callable[..., Backbone], replies: ReplyStore) -> None:
    computed: list[Spend] = []
    ours = backbone(charge=computed.append)
    model = CachedLanguageModel(lambda: ours, replies, ["tiny"], Clock(), "scorers")
    asked(model, ROWS[:3])
    computed.clear()
    assert asked(model)[0] == asked(backbone())[0]
    assert sum(computed, Spend()).generated_tokens <= 2 * 5, "two new rows of four tokens, and what ends them"


def test_a_call_is_charged_once_and_to_the_token_in_however_many_parts_it_is_known(
    backbone: Callable[..., Backbone], replies: ReplyStore
) -> None:
    """The model charges what it computes, the cache what it knows; together they charge what a call returns."""
    charged: list[Spend] = []
    ours = backbone(charge=charged.append)
    model = CachedLanguageModel(lambda: ours, replies, ["tiny"], Clock(), "scorers", charged.append)
    for rows in (ROWS[:3], ROWS, ROWS[1:2], ROWS[3:], ROWS):
        charged.clear()
        _, spend = asked(model, rows)
        assert spend == sum(charged, Spend())
    apart = CachedLanguageModel(no_model, replies, ["tiny"], Clock(), "scorers")
    together = CachedLanguageModel(no_model, replies, ["tiny"], Clock(), "scorers")
    whole, parts = asked(together)[1], sum((asked(apart, [row])[1] for row in ROWS), Spend())
    assert parts == whole.model_copy(update={"seconds": pytest.approx(whole.seconds)})


def test_of_several_prompts_only_what_is_new_is_computed_and_all_is_charged_once(
    backbone: Callable[..., Backbone], replies: ReplyStore
) -> None:
    charged: list[Spend] = []
    ours, options = backbone(charge=charged.append), {"adapter": None, "max_new_tokens": 4}
    prompts = [Asked(PROMPT, ROWS), Asked(Prompt(), ROWS[:2]), Asked(Prompt(system="Who?"), ROWS[1:4])]
    wanted = [ours.generate(*each, **options) for each in prompts]
    model = CachedLanguageModel(lambda: ours, replies, ["tiny"], Clock(), "scorers", charged.append)
    for each in (Asked(PROMPT, ROWS[:3]), prompts[1]):
        model.generate(*each, **options)
    charged.clear()
    answers = model.generate_each(prompts, **options)
    assert [texts for texts, _ in answers] == [texts for texts, _ in wanted]
    assert sum((spend for _, spend in answers), Spend()) == sum(charged, Spend())
    assert answers[2][1] == wanted[2][1] and answers[1][1].generated_tokens == wanted[1][1].generated_tokens
    again = CachedLanguageModel(no_model, replies, ["tiny"], Clock(), "scorers")
    known = again.generate_each(prompts, **options)
    assert [texts for texts, _ in known] == [texts for texts, _ in wanted]
    assert known[2][1].read_tokens == pytest.approx(wanted[2][1].read_tokens, abs=1)


def test_likelihoods_are_kept_too(backbone: Callable[..., Backbone], replies: ReplyStore) -> None:
    ours, completions = backbone(), [("ANSWER: ", "Heskzan")] * len(ROWS)
    computed, spend = ours.nll(PROMPT, ROWS, completions, adapter=None)
    CachedLanguageModel(lambda: ours, replies, ["tiny"], Clock(), "scorers").nll(
        PROMPT, ROWS, completions, adapter=None
    )
    kept = CachedLanguageModel(no_model, replies, ["tiny"], Clock(), "scorers")
    found, spared = kept.nll(PROMPT, ROWS, completions, adapter=None)
    assert found == computed
    assert spared.generated_tokens == 0 < spared.read_tokens == spend.read_tokens


@pytest.mark.parametrize(
    "change",
    [
        {"adapter": "a"},
        {"max_new_tokens": 5},
        {"stop_early": lambda example, text: False},
        {"prompt": Prompt()},
        {"rows": [row.model_copy(update={"system": "Be brief."}) for row in ROWS]},
        {"rows": [row.model_copy(update={"demos": (Demo(question="1?", answer="one"),)}) for row in ROWS]},
    ],
)
def test_whatever_shapes_an_answer_is_asked_anew(
    backbone: Callable[..., Backbone], replies: ReplyStore, change: dict[str, Any]
) -> None:
    ours = backbone()
    asked(CachedLanguageModel(lambda: ours, replies, ["tiny"], Clock(), "scorers"))
    options: dict[str, Any] = {"prompt": PROMPT, "adapter": None, "max_new_tokens": 4} | change
    with pytest.raises(AssertionError, match="the model was wanted"):
        CachedLanguageModel(no_model, replies, ["tiny"], Clock(), "scorers").generate(
            options.pop("prompt"), options.pop("rows", ROWS), **options
        )


def test_an_answer_that_one_tasks_scorers_cut_off_is_none_to_anothers(
    backbone: Callable[..., Backbone], replies: ReplyStore
) -> None:
    """While answers that nothing can cut off are the same whoever scores them."""
    ours, options = backbone(), {"adapter": None, "max_new_tokens": 6}
    brief = CachedLanguageModel(lambda: ours, replies, ["tiny"], Clock(), "brief")
    patient = CachedLanguageModel(lambda: ours, replies, ["tiny"], Clock(), "patient")
    short, _ = brief.generate(PROMPT, ROWS, stop_early=lambda row, text: bool(text), **options)
    long, _ = patient.generate(PROMPT, ROWS, stop_early=lambda row, text: False, **options)
    assert long == ours.generate(PROMPT, ROWS, **options)[0] != short
    again = CachedLanguageModel(no_model, replies, ["tiny"], Clock(), "brief")
    assert again.generate(PROMPT, ROWS, stop_early=lambda row, text: bool(text), **options)[0] == short
    brief.generate(PROMPT, ROWS, **options)
    again = CachedLanguageModel(no_model, replies, ["tiny"], Clock(), "patient")
    assert again.generate(PROMPT, ROWS, **options)[0] == long


def test_an_answer_that_ended_early_for_one_reference_is_none_to_another(
    backbone: Callable[..., Backbone], replies: ReplyStore
) -> None:
    model = CachedLanguageModel(backbone, replies, ["tiny"], Clock(), "scorers")
    short_row, long_row = (ROWS[0].model_copy(update={"answer": answer}) for answer in ("short", "long"))
    (short, long), _ = model.generate(
        PROMPT,
        [short_row, long_row],
        adapter=None,
        max_new_tokens=6,
        stop_early=lambda row, text: row.answer == "short",
    )
    assert len(short) < len(long)


def test_an_adapter_is_lent_whole_and_borrowed_as_it_was(tmp_path: Path) -> None:
    made, lent = tmp_path / "one" / "0123", tmp_path / "two" / "0123"
    made.mkdir(parents=True)
    lent.parent.mkdir()
    (made / "adapter_model.safetensors").write_bytes(b"weights")
    pool = Pool(tmp_path / "pool")
    pool.lend("0123", made)
    pool.borrow("0123", lent)
    assert not lent.exists(), "it was not complete"
    (made / "complete").touch()
    pool.lend("0123", made)
    pool.borrow("0123", lent)
    assert (lent / "adapter_model.safetensors").read_bytes() == b"weights"
    assert (lent / "complete").is_file()
