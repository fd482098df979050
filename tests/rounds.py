"""Signals, diagnoses and rounds, made from the few facts that a test of the mind is about."""

from typing import Any

from agent.config import TaskConfig
from agent.moves import Decision, EditPrompt, Move, Rollback, TrainLora
from agent.records import Candidate, Diagnosis, ExampleDiagnosis, LeverSignal, Need, Signal
from agent.rounds import Round, Spend, Trial, Verdict

EDIT, TRAIN, BACK = EditPrompt(), TrainLora(), Rollback(to_round=0)
SATURATED = LeverSignal(rounds=2, fruitless=2, saturated=True)


def a_config(**changes: Any) -> TaskConfig:
    """A sound task; keyword arguments are sections of its task.yaml."""
    files = {split: f"{split}.jsonl" for split in ("train", "validation", "test")}
    task = {"name": "mayors", "data": files, "content": [{"kind": "contains"}]}
    return TaskConfig.model_validate(task | changes)


def a_signal(**changes: Any) -> Signal:
    """A run that has far to go."""
    return Signal.model_validate({"reward": 0.2, "content": 0.5, "style": 0.4, "noise": 0.1} | changes)


def a_diagnosis(*, style: int = 0, content: int = 0, both: int = 0, total: int = 10) -> Diagnosis:
    """So many of `total` rows lack this; every failing row was probed."""
    counts: dict[Need, int] = {"style": style, "content": content, "both": both}
    needs = [need for need, count in counts.items() for _ in range(count)]
    examples = tuple(
        ExampleDiagnosis(example=f"validation:{line}", need=need, prompt_gap=3.0, weight_gap=2.0)
        for line, need in enumerate(needs, 1)
    )
    return Diagnosis(failing=len(needs), total=total, examples=examples)


def a_round(
    move: Move, *, number: int = 1, kept: bool = False, gain: float = 0.0, note: str = "", **loss: Any
) -> Round:
    """A round of this move; `loss` may hold the trial's loss, loss_drop and grad_norm; `note` fills every free text."""
    pair = Candidate(prompt="0" * 12)
    return Round(
        number=number,
        signal=a_signal(),
        diagnosis=a_diagnosis(both=8),
        decision=Decision(move=move, reason=note),
        trial=Trial(candidate=pair, note=note, **loss),
        verdict=Verdict(kept=kept, reason=note, before=0.2, after=0.2 + gain, p_value=0.5, merit_gain=gain),
        best=pair,
        reward=0.2,
        spend=Spend(),
    )
