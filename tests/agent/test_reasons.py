"""A decision's sentence is true of its own numbers: over a grid of situations, every claim is checked against them."""

import random
import re
from collections.abc import Iterator, Sequence
from itertools import product

import pytest

from agent.policy.base import FIRST_REPLAY, LIKELY, TEACHABLE, WORTH_A_ROUND, WORTH_KEEPING
from agent.policy.learned import Learned
from agent.policy.paper import PaperSwitch
from agent.policy.rules import Rules
from agent.protocols import Briefing
from agent.records.actions import Decision, EditPrompt, TrainLora
from agent.records.rounds import Round, Spend
from agent.records.signal import KNOWN_BELOW, LUCK_WORTH_SAYING, Diagnosis, ExampleDiagnosis, LeverSignal, Need, Outlook
from tests.fixtures.rounds import EDIT, TRAIN, a_config, a_round, a_signal

CONFIG = a_config()
GAPS = (None, 0.1, KNOWN_BELOW - 0.001, KNOWN_BELOW, 6.0)
CHANCES = (None, 0.05, 0.4, 0.9)  # that words mend a row
NEEDS: tuple[tuple[Need, ...], ...] = (
    (),
    ("style",),
    ("content",) * 4,
    ("both",) * 9,
    ("style", "content", "both") * 3,
)
OPEN, ONCE = LeverSignal(rounds=1, gain=0.1), LeverSignal(rounds=1, fruitless=1, saturated=True)
TWICE = LeverSignal(rounds=3, fruitless=2, gain=-0.1, saturated=True)
THRICE = LeverSignal(rounds=3, forgot=3, saturated=True)
LEVERS = ((OPEN, OPEN), (TWICE, OPEN), (OPEN, ONCE), (ONCE, TWICE), (OPEN, THRICE))
REFUSED: tuple[tuple[str, ...], ...] = ((), ("train_lora",), ("edit_prompt",))
FORGETFUL = a_round(TRAIN, gain=-0.1)
FORGETFUL = FORGETFUL.model_copy(
    update={"verdict": FORGETFUL.verdict.model_copy(update={"objection": "drift", "drift": 2.5})}
)
UNDER = TRAIN.model_copy(update={"rows": "refined"})
BARE = UNDER.model_copy(update={"bare": True})
FAILED = a_round(UNDER, gain=-0.1).model_copy(update={"signal": a_signal(few_shot=True)})
UNFINISHED = a_round(BARE, gain=-0.1, loss=0.1, loss_drop=0.1)
HISTORIES: tuple[list[Round], ...] = (
    [], [a_round(TRAIN, kept=True)], [a_round(EDIT, kept=True, gain=0.3)], [FAILED], [UNFINISHED], [FORGETFUL],
)  # fmt: skip


def diagnosis(needs: Sequence[Need], gap: float | None, words: float | None) -> Diagnosis:
    """Ten rows, of which those that need something fail; all were probed."""
    examples = []
    for place, need in enumerate(needs):
        rest: Need = "both" if need == "style" else need
        chances: dict[Need, float] = {} if words is None else {"style": words, rest: 1 - words}
        examples.append(ExampleDiagnosis(example=f"validation:{place}", need=need, weight_gap=gap, chances=chances))
    return Diagnosis(failing=len(examples), total=10, examples=tuple(examples))


def situations() -> Iterator[Briefing]:
    teachable = ({"shown": 0.0, "remade": 1.0}, {"shown": 0.2, "remade": 0.3}, {"shown": 1.0, "remade": 1.0})
    outlooks = ((0.2, 2_000, 0.1, 30_000), (0.01, 2_000, 0.3, 1_000), (-0.1, 500, 0.0, 800))
    trained = ({}, {"loss": 1.0, "loss_drop": 0.2, "grad_drop": 0.1}, {"loss": 1.0, "loss_drop": -0.1})
    draw = random.Random(0)  # of what varies beside the grid
    for needs, gap, words, levers, refused, history in product(NEEDS, GAPS, CHANCES, LEVERS, REFUSED, HISTORIES):
        edit, cost, lora, dear = draw.choice(outlooks)
        own = {
            "edit": levers[0].model_copy(update={"outlook": Outlook(gain=edit, spread=0.1, cost=cost)}),
            "lora": levers[1].model_copy(update={"outlook": Outlook(gain=lora, spread=0.1, cost=dear)}),
        }
        drawn = {**own, **draw.choice(trained), **draw.choice(teachable), "style": draw.choice((0.4, 1.0))}
        drawn |= {
            "few_shot": draw.random() < 0.5,
            "luck": draw.choice((0.0, 0.05, 0.45)),
            "content": draw.choice((0.5, 0.9)),
        }
        drawn |= {"refined": drawn["few_shot"]}
        signal = a_signal(floor=0.03, **drawn)
        yield Briefing(signal, diagnosis(needs, gap, words), history, Spend(), refused)


def percent(pattern: str, text: str) -> float | None:
    found = re.search(pattern, text)
    return int(found[1]) / 100 if found else None


def check(decision: Decision, briefing: Briefing) -> None:
    """Every claim that a reason of ours can make, against the numbers that it rests on."""
    said, signal, found = decision.reason, briefing.signal, briefing.diagnosis
    numbers = decision.numbers
    for lack in ("style", "content"):
        share = percent(rf"(\d+)% of the rows lack {lack}", said)
        assert share is None or share == pytest.approx(numbers[f"rows lacking {lack}"], abs=0.0051)
    if (reach := percent(r"Words alone may get (\d+)%", said)) is not None:
        assert reach == pytest.approx(1 - numbers["rows lacking content"], abs=0.0051)
    assert ("hardly knows" in said) <= (numbers.get("weight gap", 0) >= KNOWN_BELOW)
    likely = numbers.get("weight gap", 99) < KNOWN_BELOW
    assert ("may know" in said) <= (likely and signal.luck < LUCK_WORTH_SAYING)
    if (luck := percent(r"no knowledge where one alone is right for (\d+)%", said)) is not None:
        assert likely and luck == pytest.approx(signal.luck, abs=0.0051) and luck >= LUCK_WORTH_SAYING
    if "Words alone may" in said:
        counted = signal.luck if signal.luck >= LUCK_WORTH_SAYING and found.by != "rewards" else None
        assert percent(r"one answer alone is right for (\d+)%", said) == counted
    if "too few for an edit" in said:
        assert isinstance(decision.move, TrainLora) and found.share("style") < WORTH_A_ROUND
    if (chance := percent(r"given a chance of (\d+)% to mend a failing row", said)) is not None:
        assert chance == pytest.approx(numbers["an edit's chance"], abs=0.0051)
        if "An edit is given a chance" in said:
            assert isinstance(decision.move, EditPrompt) and signal.edit.fruitless == 0 and chance >= LIKELY
    assert "only weights" not in said and "whatever the words" not in said, "words may bring what they retrieve"
    for name, lever, action in (("Edits", signal.edit, "edit_prompt"), ("LoRA", signal.lora, "train_lora")):
        verb = "is" if name == "LoRA" else "are"
        tries = "try" if lever.discarded == 1 else f"{lever.discarded} tries"
        if f"{name} {verb} saturated: nothing was kept" in said:
            assert lever.saturated and f"{name} {verb} saturated: nothing was kept of the last {tries}." in said
        assert (f"{name} {'was' if name == 'LoRA' else 'were'} turned down" in said) <= (action in briefing.refused)
    if (in_form := percent(r"(\d+)% of the train answers can be shown", said)) is not None:
        assert isinstance(decision.move, TrainLora) and in_form >= TEACHABLE
        assert in_form == (signal.shown if decision.move.rows == "original" else signal.remade)
    if (teachable := percent(r"Only (\d+)% of the train answers have", said)) is not None:
        assert teachable == pytest.approx(signal.teachable, abs=0.0051) and teachable < TEACHABLE
    if "forgot too much" in said:
        assert "(2.50 nats a token on general text)" in said and briefing.history == HISTORIES[-1]
        assert isinstance(decision.move, TrainLora) and decision.move.fresh
        assert f"with {decision.move.replay:g} general rows for each row" in said
        assert (decision.move.replay or 0) >= FIRST_REPLAY, "more than the last one, which had none"
    if isinstance(decision.move, TrainLora) and decision.move.bare:
        assert signal.few_shot and signal.teachable >= TEACHABLE
        last = briefing.history[-1] if briefing.history else None
        assert ("it is trained without" in said) == (signal.known < WORTH_KEEPING)
        assert ("Like the last training" in said) == (signal.known >= WORTH_KEEPING)
        assert signal.known < WORTH_KEEPING or (last is not None and last.decision.move == BARE)
    else:
        assert "trained without" not in said and "does without" not in said
    if (epochs := re.search(r"its loss still fell, so this one has (\d+) epochs", said)) is not None:
        assert isinstance(decision.move, TrainLora) and int(epochs[1]) == decision.move.epochs == 2 * TRAIN.epochs
        assert briefing.history[-1].trial.loss_drop and not briefing.history[-1].verdict.kept
    if (known := percent(r"the model knows (\d+)% of the answers", said)) is not None:
        assert known == pytest.approx(signal.known, abs=0.0051)
        assert percent(r"beyond the (\d+)% that luck may", said) == (signal.luck or None)
    if "No row lacks content" in said:
        assert found.share("content") == 0
    if (left := percent(r"Only (\d+)% of the rows lack style", said)) is not None:
        assert left <= WORTH_A_ROUND and found.share("style") < WORTH_A_ROUND
    if moved := re.search(r"last training (fell|rose) by (\d+)%", said):
        assert signal.loss_drop == pytest.approx(int(moved[2]) / 100 * (1 if moved[1] == "fell" else -1))
    if (cost := percent(r"estimated at (\d+)% of the cost", said)) is not None:
        assert signal.edit.outlook and signal.lora.outlook and cost < 1
        assert cost == pytest.approx(signal.edit.outlook.cost / signal.lora.outlook.cost, abs=0.0051)
    if gained := re.search(r"last edit changed the reward by ([+-]\d\.\d\d)", said):
        assert float(gained[1]) == pytest.approx(signal.edit.gain, abs=0.0051)


def test_what_the_rules_say_is_true_of_their_numbers() -> None:
    rules = Rules(CONFIG)
    reasons = set()
    for briefing in situations():
        decision = rules.decide(briefing)
        check(decision, briefing)
        assert decision.reason and "  " not in decision.reason and decision.reason.endswith(".")
        if decision.move.action == "stop":
            assert decision.reason.startswith(("The ", "No lever is left to try."))
        reasons.add(re.sub(r"[\d.+-]+", "#", decision.reason))
    assert len(reasons) > 40, "a grid that reaches few sentences tests little"
    for clause in (
        "hardly knows",
        "may know",
        "; an edit is given",
        "An edit is given",
        "can be shown",
        "Only #% of the train",
        "is saturated",
        "that luck may bring",
        "it is trained without",
        "no knowledge where one alone is right",
        "lucky guesses among the failing ones",
        "style, too few for an edit",
        "and starts anew",
        "Like the last training",
        "its loss still fell",
    ):
        assert any(clause in reason for reason in reasons), clause


def test_what_the_papers_switch_says_is_true_of_its_numbers() -> None:
    for briefing in situations():
        check(PaperSwitch(a_config(policy="paper")).decide(briefing), briefing)


def test_what_the_learned_switch_says_is_true_of_its_numbers() -> None:
    reasons = set()
    for seed, briefing in enumerate(situations()):  # each with draws of its own
        learned = Learned(a_config(policy="learned", seed=seed))
        decision, floor = learned.decide(briefing), briefing.signal.floor
        check(decision, briefing)
        promises = learned.promises(briefing)
        chosen = next((promise for promise in promises if promise.action == decision.move), None)
        rates = {promise.action.action: promise.gain / promise.cost for promise in promises}
        said = decision.reason
        if "promise the most merit per token" in said:
            assert chosen and len(promises) == 2 and rates[chosen.action.action] == max(rates.values())
        if "No other lever is open" in said:
            assert len(promises) == 1
        if "promise as much as the noise floor" in said:
            assert chosen and [promise for promise in promises if promise.gain >= floor] == [chosen]
        if "Neither promises more than the noise floor" in said:
            assert all(promise.gain <= floor for promise in promises)
        if "reaches the noise floor" in said:
            assert all(promise.drawn < floor for promise in promises) and chosen and chosen.possible > floor
        if "would not pass the noise floor" in said:
            assert all(promise.possible <= floor for promise in promises) and decision.move.action == "stop"
        if "come first, but the gains drawn" in said:
            assert chosen and chosen.drawn / chosen.cost == max(p.drawn / p.cost for p in promises if p.drawn >= floor)
        reasons.add(re.sub(r"^(An edit|LoRA) .*?tokens\. |[\d.]+", "", said))
    assert len(reasons) >= 6
