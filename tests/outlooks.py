"""Briefings of the learned switch and rounds to learn from, made as a run makes them."""

from collections.abc import Sequence
from typing import Any

from agent.experience import Experience
from agent.moves import EditPrompt, TrainLora
from agent.outlook import with_outlook
from agent.prices import Prices
from agent.protocols import Briefing
from agent.records import Diagnosis, Signal
from agent.rounds import Round
from tests.rounds import EDIT, a_config, a_diagnosis, a_signal

PRICES = Prices(lora=30_000, edit=2_000, judging=800)
CONFIG = a_config()


def seen(signal: Signal, diagnosis: Diagnosis, history: Sequence[Round] = (), prices: Prices = PRICES) -> Signal:
    """The signal with its outlooks."""
    return with_outlook(signal, diagnosis, history, CONFIG, prices)


def a_briefing(diagnosis: Diagnosis, history: Sequence[Round] = (), **signal: Any) -> Briefing:
    return Briefing(seen(a_signal(**signal), diagnosis, history), diagnosis, history)


def a_line(move: EditPrompt | TrainLora = EDIT, *, number: int = 1, gain: float = 0.0, **changes: Any) -> Experience:
    """A round of another run on another task, with four fifths of the rows lacking both."""
    diagnosis = a_diagnosis(both=8)
    usual = {"run": "towns-1", "task": "towns", "model": CONFIG.model, "shares": {"both": 0.8}, "cost": 2_000}
    known = {"number": number, "signal": seen(a_signal(), diagnosis), "move": move, "gain": gain, "kept": gain > 0}
    return Experience.model_validate(usual | known | changes)


FAILED_EDITS = [a_line(EDIT, number=number) for number in range(1, 9)]
