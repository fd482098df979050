"""The records: their ids, their bounds, and the sums that rest on them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from agent.records.actions import Action, Alternative, Decision, EditPrompt, TrainLora
from agent.records.base import FORMAT, Record, digest, folded
from agent.records.evaluation import ExampleScore
from agent.records.events import EVENT, InquiryMade
from agent.records.examples import Demo, Example, Prompt, Retrieval, Turn
from agent.records.looks import Inquiry, PromptTried, TryPrompt
from agent.records.rounds import Proposal, Spend
from agent.records.signal import Diagnosis, ExampleDiagnosis, Need
from memory.remake import source_of

SHARES = st.floats(0, 1)
PROMPT = Prompt(system="Réponds.", demos=(Demo(question="2+2?", answer="4"),))
REPO = Path(__file__).parents[2]

# --- ids -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", ["0", "1"])
def test_equal_records_have_equal_ids_in_every_process(seed: str) -> None:
    code = f"from agent.records.examples import Demo, Prompt; print(({PROMPT!r}).id)"
    environment = os.environ | {"PYTHONHASHSEED": seed}
    process = subprocess.run([sys.executable, "-c", code], cwd=REPO, env=environment, capture_output=True, check=True)
    assert process.stdout.decode().strip() == PROMPT.id


def test_rows_without_a_system_text_have_the_ids_of_old() -> None:
    plain = Example(name="train:1", question="Who?", answer="Bo")
    turned = plain.model_copy(
        update={"turns": (Turn(role="user", content="Hi"), Turn(role="assistant", content="Hello"))}
    )
    assert (plain.id, source_of(plain)) == ("e95baecf39d5", "0aa06a367d01")
    assert (turned.id, source_of(turned)) == ("0358a5a8ae3f", "fcf494cb9524")
    own = plain.model_copy(update={"system": "Be brief."})
    assert len({own.id, plain.id}) == len({source_of(own), source_of(plain)}) == 2
    assert Example.model_validate(own.model_dump()) == own


def test_what_retrieves_nothing_has_the_ids_of_old() -> None:
    plain, row = Prompt(system="Answer.", demos=PROMPT.demos), Example(name="train:1", question="Who?", answer="Bo")
    assert (plain.id, PROMPT.id) == ("2ac2a1d753b6", "f84f8950f1b8")
    assert "retrieval" not in plain.model_dump_json() and "demos" not in row.model_dump_json()
    retrieving = plain.model_copy(update={"retrieval": Retrieval(k=4)})
    shown = row.model_copy(update={"demos": PROMPT.demos})
    assert retrieving.id != plain.id and shown.id != row.id
    assert Prompt.model_validate_json(retrieving.model_dump_json()) == retrieving
    assert Example.model_validate(shown.model_dump()) == shown


def test_a_prompt_that_retrieves_is_dearer_than_any_that_does_not() -> None:
    long, short = Prompt(system="Answer. " * 99), Prompt(system="Answer.")
    few, many = (short.model_copy(update={"retrieval": Retrieval(k=k)}) for k in (1, 2))
    assert short.price < long.price < few.price < many.price


def test_texts_compare_without_case_white_space_and_unicode_form() -> None:
    assert folded("  Wer r\u00fcgt\n die Stra\u00dfe?") == folded("WER RU\u0308GT die  strasse?")
    assert folded("Who?") != folded("Who")


def test_a_changed_copy_has_an_id_of_its_own() -> None:
    before = PROMPT.id
    changed = PROMPT.model_copy(update={"system": "Answer."})
    assert changed.id != before == PROMPT.id
    assert changed.model_copy(update={"system": PROMPT.system}).id == before


@given(st.dictionaries(st.text(), st.integers() | st.text()))
def test_the_order_of_keys_does_not_matter(value: dict[str, int | str]) -> None:
    assert digest(value) == digest(dict(reversed(value.items())))


def test_a_record_cannot_be_changed_or_misspelt() -> None:
    with pytest.raises(ValidationError):
        PROMPT.system = "Answer."  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Prompt.model_validate({"sytem": "Answer."})


# --- scores --------------------------------------------------------------------------------------


@given(SHARES, SHARES)
def test_reward_and_merit_stay_in_bounds(content: float, style: float) -> None:
    score = ExampleScore(example="validation:1", output="", content=content, style=style)
    assert 0 <= score.reward <= min(content, style)
    assert 0 <= score.merit <= 1
    assert score.merit >= score.reward - 1e-9


def test_merit_sees_the_progress_of_one_factor_while_the_other_is_0() -> None:
    before, after = (ExampleScore(example="e", output="", content=content, style=0) for content in (0.5, 1))
    assert before.reward == after.reward == 0
    assert before.merit < after.merit


# --- diagnosis -----------------------------------------------------------------------------------


def diagnosis(*needs: Need, failing: int, total: int) -> Diagnosis:
    examples = tuple(ExampleDiagnosis(example=f"validation:{line}", need=need) for line, need in enumerate(needs, 1))
    return Diagnosis(failing=failing, total=total, examples=examples)


def test_share_counts_all_rows_and_a_row_that_lacks_both_twice() -> None:
    probed = diagnosis("style", "both", "content", "content", failing=4, total=8)
    assert (probed.share("style"), probed.share("content")) == (0.25, 0.375)


def test_share_is_estimated_from_the_failing_rows_that_were_probed() -> None:
    assert diagnosis("style", "content", failing=40, total=50).share("style") == pytest.approx(0.4)


def test_share_is_0_when_nothing_fails_or_nothing_was_probed() -> None:
    assert diagnosis(failing=0, total=8).share("style") == 0.0
    assert diagnosis(failing=5, total=8).share("content") == 0.0


def test_gaps_are_means_over_the_rows_where_they_are_known() -> None:
    rows = (
        ExampleDiagnosis(example="validation:1", need="style", prompt_gap=1.0),
        ExampleDiagnosis(example="validation:2", need="style", prompt_gap=3.0),
        ExampleDiagnosis(example="validation:3", need="style"),
    )
    probed = Diagnosis(failing=3, total=3, examples=rows)
    assert (probed.prompt_gap, probed.weight_gap) == (2.0, None)


# --- prompts, moves and spend --------------------------------------------------------------------


def test_a_question_with_braces_or_dollars_is_asked_as_it_stands() -> None:
    assert Prompt(template="Q: {question} A:").ask("what is {x} in $y?") == "Q: what is {x} in $y? A:"


def test_every_demonstration_makes_a_prompt_longer() -> None:
    shorter = PROMPT.model_copy(update={"demos": ()})
    assert PROMPT.length - shorter.length == len("2+2?") + len("4")


@pytest.mark.parametrize(
    "move",
    [
        {"action": "delete_everything"},
        {"action": "train_lora", "rank": 4096},
        {"action": "train_lora", "learning_rate": 5},
        {"action": "train_lora", "learning_rate": float("nan")},
        {"action": "train_lora", "epochs": 0},
        {"action": "edit_prompt", "parts": []},
        {"action": "edit_prompt", "parts": ["scorers"]},
        {"action": "rollback", "to_round": -1},
        {"action": "stop", "shell": "rm"},
    ],
)
def test_no_move_exists_out_of_bounds(move: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Action).validate_python(move)


def test_a_move_is_read_back_as_it_was_written() -> None:
    move = TrainLora(rows="both", epochs=2, fresh=True)
    assert TypeAdapter(Action).validate_json(move.model_dump_json()) == move


SPENDS = st.builds(
    Spend, seconds=st.integers(0, 10**6), train_tokens=st.integers(0, 10**9), generated_tokens=st.integers(0, 10**9),
    llm_tokens=st.integers(0, 10**9), usd=st.integers(0, 100),
)  # fmt: skip


@given(SPENDS, SPENDS)
def test_spend_adds_up_and_takes_apart(first: Spend, second: Spend) -> None:
    assert first + second == second + first
    assert (first + second) - second == first
    assert (first + second).llm_tokens == first.llm_tokens + second.llm_tokens


# --- what runs on disk are read with --------------------------------------------------------------


def kept_records() -> dict[str, type[Record]]:
    """All that ledgers and checkpoints may hold, by name."""

    def below(kind: type[Record]) -> Iterator[type[Record]]:
        for subclass in kind.__subclasses__():
            yield from (subclass, *below(subclass))

    return {kind.__name__: kind for kind in below(Record) if kind.__module__.startswith("agent.records.")}


def test_records_of_this_format_are_still_read() -> None:
    """Where this fails, raise FORMAT and write the file of the new one: older runs then say what cannot be read."""
    fields: dict[str, list[str]] = json.loads((REPO / f"tests/snapshots/records-{FORMAT}.json").read_text())
    records = kept_records()
    assert set(fields) <= set(records)
    for name, known in fields.items():
        now = records[name].model_fields
        assert set(known) <= set(now), f"{name} has lost a field"
        assert not [field for field in set(now) - set(known) if now[field].is_required()], f"{name} demands a new field"


def test_no_record_is_built_of_what_was_not_checked() -> None:
    with pytest.raises(TypeError, match="checked"):
        Prompt.model_construct(system=1)


# --- decisions -----------------------------------------------------------------------------------


def test_a_decision_knows_whether_its_alternative_is_the_same_action_or_the_same_lever() -> None:
    def decided(alternative: Action) -> Decision:
        return Decision(move=TrainLora(rank=8), reason="", alternative=Alternative(action=alternative, reason=""))

    same, other_settings, other_lever = map(decided, (TrainLora(rank=8), TrainLora(), EditPrompt()))
    assert (same.agrees, same.repeats) == (True, True)
    assert (other_settings.agrees, other_settings.repeats) == (True, False)
    assert (other_lever.agrees, other_lever.repeats) == (False, False)
    alone = Decision(move=EditPrompt(), reason="")
    assert alone.agrees is None and not alone.repeats


def test_a_decision_of_an_older_ledger_is_read_and_compared_as_it_was_written() -> None:
    move = {"action": "train_lora", "rows": "refined", "epochs": 4, "learning_rate": 1e-3, "rank": 8}
    sentence = "train_lora on refined rows, 4 epochs at rate 0.001, rank 8: 60% of the rows lack content."
    old = {"move": move, "reason": "r", "numbers": {"reward": 0.2}, "by": "planner", "rules_would": sentence}
    decision = Decision.model_validate(old)
    assert decision.agrees and decision.repeats and decision.rules_would == sentence
    assert Decision.model_validate(old | {"rules_would": "stop: enough"}).agrees is False
    assert Proposal.model_validate({"prompt": "0", "note": "refused: it gives a row away"}).refused == ""


def test_what_was_looked_at_is_read_back_as_it_was_written() -> None:
    tried = PromptTried(question="Who?", answer="Nobody.")
    looked = Inquiry(look=TryPrompt(question="Who?"), reason="Does it know?", finding=tried)
    decision = Decision(move=EditPrompt(), reason="", inquiries=(looked, Inquiry(fault="no usable answer")))
    event = InquiryMade(number=3, inquiry=looked)
    assert Decision.model_validate_json(decision.model_dump_json()) == decision
    assert EVENT.validate_json(event.model_dump_json()) == event
