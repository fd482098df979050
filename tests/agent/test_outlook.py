"""The outlook: what each lever promises, how sure that is, and what it costs."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.records.actions import Action, TrainLora
from agent.records.examples import Example, Prompt, Retrieval
from agent.records.rounds import Proposal, Round, Spend
from agent.records.signal import Diagnosis, Outlook, Signal
from agent.signal.cost_model import GENERAL_ROW, estimate_costs
from agent.signal.monitor import Lever
from agent.signal.outlook import YIELD, YIELD_SPREAD, lever_yield, mendable, noise_floor, with_outlook
from tests.agent.test_policy import DIAGNOSES, SIGNALS
from tests.fixtures.outlooks import CONFIG, COSTS, seen
from tests.fixtures.rounds import BACK, EDIT, TRAIN, a_config, a_diagnosis, a_round, a_signal

REFINED = TrainLora(rows="refined")
HISTORIES = st.lists(
    st.builds(
        a_round, st.sampled_from([EDIT, TRAIN, REFINED, BACK]), kept=st.booleans(), gain=st.floats(-1, 1),
        loss_drop=st.floats(-1, 1) | st.none(),
    ),
    max_size=6,
)  # fmt: skip


def outlooks(history: list[Round], **needs: int) -> tuple[Outlook, Outlook]:
    """Of an edit, and of LoRA."""
    signal = seen(a_signal(), a_diagnosis(**needs), history)
    assert signal.edit.outlook and signal.lora.outlook
    return signal.edit.outlook, signal.lora.outlook


# --- what is there -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("move", "need", "merit"),
    [
        (EDIT, "style", 2 / 3), (EDIT, "both", 1 / 3), (EDIT, "content", 0),
        (TRAIN, "style", 0), (TRAIN, "both", 1 / 3), (TRAIN, "content", 1 / 3),
        (REFINED, "style", 1 / 3), (REFINED, "both", 1), (REFINED, "content", 2 / 3),
    ],
)  # fmt: skip
def test_what_a_lever_could_repair_depends_on_what_rows_lack(move: Action, need: str, merit: float) -> None:
    assert mendable(move, a_diagnosis(**{need: 6}), a_signal()).merit == pytest.approx(0.6 * merit)


def test_words_add_nothing_to_rows_that_need_weights_where_remade_rows_teach_the_form_along() -> None:
    lack = a_diagnosis(both=6, style=2)
    assert mendable(EDIT, lack, a_signal(remade=1.0)).merit == pytest.approx(0.2 * 2 / 3)
    assert mendable(EDIT, lack, a_signal()).merit == pytest.approx(0.2 * 2 / 3 + 0.6 / 3)


def test_answers_in_the_wanted_form_teach_as_well_as_remade_ones() -> None:
    diagnosis = a_diagnosis(content=3, both=3, style=1)
    assert mendable(TRAIN, diagnosis, a_signal(shown=1.0)) == pytest.approx(mendable(REFINED, diagnosis, a_signal()))


def test_few_probed_rows_leave_it_less_sure() -> None:
    few = a_diagnosis(style=2, both=2).model_copy(update={"failing": 100, "total": 100})
    many = a_diagnosis(style=20, both=20).model_copy(update={"failing": 100, "total": 100})
    assert mendable(EDIT, few, a_signal()).merit == pytest.approx(mendable(EDIT, many, a_signal()).merit)
    assert mendable(EDIT, few, a_signal()).spread > mendable(EDIT, many, a_signal()).spread


# --- what the levers make of it ------------------------------------------------------------------


def test_before_any_round_a_lever_is_taken_to_repair_half() -> None:
    edit, lora = outlooks([], style=5, content=5)
    assert edit.gain == pytest.approx(YIELD / 3)
    assert (edit.cost, lora.cost) == (COSTS.edit + COSTS.judging, COSTS.lora + COSTS.judging)
    assert edit.rate == pytest.approx(edit.gain / 2_800 * 1e6)


@pytest.mark.parametrize(("lever", "move"), [("train_lora", TRAIN), ("edit_prompt", EDIT)])
def test_a_fruitless_try_lowers_a_yield_much_and_a_gainful_one_raises_it(lever: Lever, move: Action) -> None:
    before, _ = lever_yield(lever, [])
    once, _ = lever_yield(lever, [a_round(move)])
    twice, _ = lever_yield(lever, [a_round(move), a_round(move)])
    gained, _ = lever_yield(lever, [a_round(move, kept=True, gain=0.26)])
    assert once < before / 2 and twice < once
    assert gained > before


def test_what_is_kept_of_the_other_lever_makes_a_failure_count_less() -> None:
    failed = a_round(EDIT)
    assert lever_yield("edit_prompt", [failed, a_round(TRAIN, kept=True)]) > lever_yield("edit_prompt", [failed])


def test_a_loss_that_still_falls_keeps_the_yield_up() -> None:
    falling, flat = ([a_round(TRAIN, loss_drop=drop)] for drop in (0.3, 0.01))
    assert lever_yield("train_lora", falling) > lever_yield("train_lora", flat)


def test_a_kept_training_whose_loss_lies_still_promises_little_more() -> None:
    falling, flat = (a_round(TRAIN, kept=True, gain=0.2, loss_drop=drop) for drop in (0.3, 0.01))
    assert lever_yield("train_lora", [flat])[0] < lever_yield("train_lora", [falling])[0] / 1.5
    edited = [flat, a_round(EDIT, kept=True)]  # changes the rows
    assert lever_yield("train_lora", edited)[0] > lever_yield("train_lora", [flat])[0]


def test_proposals_that_differ_leave_more_to_the_next_draw() -> None:
    def compared(*merits: float) -> list[Round]:
        row = a_round(EDIT)
        tried = tuple(Proposal(prompt="0" * 12, note="", merit=merit) for merit in merits)
        return [row.model_copy(update={"trial": row.trial.model_copy(update={"proposals": tried})})]

    alike, apart = compared(0.4, 0.3, 0.3, 0.3), compared(0.4, 0.1, 0.3, 0.4)
    assert lever_yield("edit_prompt", apart) > lever_yield("edit_prompt", alike)


def test_a_lever_costs_what_its_rounds_took() -> None:
    edit, _ = outlooks([a_round(EDIT, spend=Spend(generated_tokens=300, read_tokens=700))], both=8)
    assert edit.cost == 1_000 + COSTS.judging


@given(SIGNALS, DIAGNOSES, HISTORIES, st.floats(0, 1), st.floats(0, 1))
def test_outlooks_are_finite_and_within_what_merit_can_be(
    signal: Signal, diagnosis: Diagnosis, history: list[Round], shown: float, remade: float
) -> None:
    signal = signal.model_copy(update={"shown": shown, "remade": remade})
    after = seen(signal, diagnosis, history)
    for lever in (after.lora, after.edit):
        assert lever.outlook and -1e-9 <= lever.outlook.merit <= 1 + 1e-9 and lever.outlook.cost >= 1
        assert 0 <= lever.outlook.spread < 1 and math.isfinite(lever.outlook.rate)
    assert after.model_copy(update={"floor": 0, "lora": signal.lora, "edit": signal.edit}) == signal


@given(HISTORIES, st.sampled_from(["train_lora", "edit_prompt"]))
def test_rounds_never_make_a_yield_less_sure(history: list[Round], lever: Lever) -> None:
    spreads = [lever_yield(lever, history[:number])[1] for number in range(len(history) + 1)]
    assert max(spreads) == spreads[0] == pytest.approx(YIELD_SPREAD)


# --- the floor and the costs ---------------------------------------------------------------------


@given(st.integers(1, 1000), st.floats(0.01, 0.99))
def test_more_rows_and_a_laxer_gate_tell_smaller_gains(rows: int, alpha: float) -> None:
    assert 0 <= noise_floor(rows + 1, alpha) <= noise_floor(rows, alpha) < 1 / 3
    assert noise_floor(rows, alpha / 2) >= noise_floor(rows, alpha)


def test_costs_follow_the_sizes_of_the_task() -> None:
    def priced(rows: int = 8, **changes: object) -> tuple[float, float, float]:
        examples = [Example(name=f"train:{line}", question="Who?" * 4, answer="Gallune.") for line in range(rows)]
        found = estimate_costs(a_config(**changes), Prompt(system="Answer the question."), examples, examples)
        return found.lora, found.edit, found.judging

    usual = priced()
    assert priced(lora={"epochs": 2 * CONFIG.lora.epochs})[0] == pytest.approx(2 * usual[0])
    assert priced(edit={"proposals": 12})[1] > usual[1]
    assert priced(generation={"max_new_tokens": 8})[2] < usual[2]
    llm = {"llm": {"model": "m"}}
    textgrad, gepa, long = (
        priced(edit={"editor": editor, **more}, **llm)
        for editor, more in (("textgrad", {}), ("gepa", {}), ("gepa", {"metric_calls": 200}))
    )
    assert textgrad[1] < gepa[1] < long[1] and textgrad[0] == gepa[0], "GEPA answers rows while it searches"
    assert all(cost > base for cost, base in zip(priced(rows=16), usual, strict=True))
    # rows that are retrieved are read for each question, and in training for each row
    retrieving = Prompt(system="Answer the question.", retrieval=Retrieval(k=4))
    rows = [Example(name=f"train:{line}", question="Who?" * 4, answer="Gallune.") for line in range(8)]
    config = a_config(edit={"retrieve": 0})
    plain, shown = (
        estimate_costs(config, prompt, rows, rows) for prompt in (Prompt(system=retrieving.system), retrieving)
    )
    assert shown.judging - plain.judging == 8 * 4 * 6
    assert shown.lora - plain.lora == 3 * 3 * 8 * 4 * 6
    assert shown.edit > plain.edit and usual[1] > plain.edit, "proposals retrieve too, where they may"
    # 8 rows of 4 + 2 tokens and the 5 of the system text once, 3 epochs, 3 passes each
    assert priced(lora={"replay": 0})[0] == 3 * 3 * (8 * 6 + 5)
    general = usual[0] - priced(lora={"replay": 0})[0]
    assert general == 3 * 3 * CONFIG.lora.replay * 8 * GENERAL_ROW, "general rows beside them are trained on, too"


def test_the_cost_of_a_training_is_that_of_its_kind_and_of_its_epochs() -> None:
    spent = Spend(train_tokens=1_000)
    under = a_round(TrainLora(rows="refined", epochs=3))
    under = under.model_copy(update={"trial": under.trial.model_copy(update={"spend": spent})})

    def cost(training: TrainLora) -> float:
        outlook = with_outlook(a_signal(), a_diagnosis(content=5), [under], CONFIG, COSTS, training).lora.outlook
        assert outlook
        return outlook.cost - COSTS.judging

    assert cost(TrainLora(rows="refined", epochs=3)) == 3_000
    assert cost(TrainLora(rows="refined", epochs=6)) == 6_000
    epochs = CONFIG.lora.epochs
    assert cost(TrainLora(rows="refined", bare=True, epochs=epochs)) == COSTS.lora, "no such one was done"
    assert cost(TrainLora(rows="refined", bare=True, epochs=2 * epochs)) == 2 * COSTS.lora
