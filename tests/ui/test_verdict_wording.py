"""What is said of a verdict, and of a pair that says one thing to all rows."""

import pytest

from agent.records.evaluation import Evaluation, ExampleScore
from agent.records.examples import Candidate
from agent.records.rounds import SameAnswer, Verdict
from graphs.nodes.judge import same_answer
from ui import wording


def answered(*outputs: str, too_long: int = 0) -> Evaluation:
    scores = [ExampleScore(example=f"v:{place}", output=text, content=0, style=1) for place, text in enumerate(outputs)]
    lost = [ExampleScore(example=f"l:{n}", output="", content=0, style=0, too_long=True) for n in range(too_long)]
    return Evaluation(candidate=Candidate(prompt="p"), split="validation", scores=(*scores, *lost))


@pytest.mark.parametrize(
    ("pair", "found"),
    [
        (answered(*["no"] * 9, "yes"), SameAnswer(answer="no", rows=9, answered=10)),
        (answered(*["no"] * 8, "yes", "yes"), None),
        (answered(*["no", " no\n"] * 5), SameAnswer(answer="no", rows=10, answered=10)),
        (answered("no", "no", too_long=20), SameAnswer(answer="no", rows=2, answered=2)),
        (answered("no", too_long=20), None),
        (answered(too_long=3), None),
    ],
)
def test_a_pair_that_says_one_thing_whatever_it_is_asked_is_found(pair: Evaluation, found: SameAnswer | None) -> None:
    assert same_answer(pair) == found


def test_its_answer_cannot_steer_a_terminal() -> None:
    said = wording.same_answer(SameAnswer(answer="no\x1b[31m\nRound 2: kept" + "x" * 99, rows=9, answered=10))
    assert said.isprintable() and said.startswith('It answers "no') and said.endswith('…" to 9 of 10 validation rows.')
    assert (
        wording.same_answer(SameAnswer(answer="", rows=2, answered=2))
        == "It answers nothing to 2 of 2 validation rows."
    )


@pytest.mark.parametrize(
    ("p_value", "level", "kept", "said"),
    [
        (0.12, 1 / 30, False, "0.12 (level 0.033)"),
        (0.0185, 1 / 60, False, "0.018 (level 0.016)"),
        (0.0078, 0.0076, False, "0.008 (level 0.0076)"),
        (0.02, 1 / 30, True, "0.020"),
        (0.02, 1 / 30, False, "0.020"),
        (0.62, None, False, "0.62"),
    ],
)
def test_a_p_value_stands_beside_the_level_that_it_missed(
    p_value: float, level: float | None, kept: bool, said: str
) -> None:
    verdict = Verdict(kept=kept, reason="", before=0.1, after=0.2, p_value=p_value, level=level)
    assert wording.evidence(verdict) == said
