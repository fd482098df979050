"""What the gate keeps of changes that are worth nothing: rounds and runs, simulated with the product's own gate."""

import pytest

from agent.records.rounds import Verdict
from bench.studies.gating import ALPHA, KINDS, Rows, false_keeps, power
from eval.alpha_spending import SHARE, alpha_to_spend

BY_NAME = {kind.name: kind for kind in KINDS}
RUNS = 60


@pytest.mark.parametrize("compared_on", ["train", "held out"])
@pytest.mark.parametrize("kind", ["right or wrong", "graded"])
def test_a_run_of_twelve_empty_rounds_keeps_a_change_no_more_often_than_alpha(kind: str, compared_on: Rows) -> None:
    _, by_run = false_keeps(BY_NAME[kind], compared_on, True, RUNS)
    assert by_run <= ALPHA


def test_a_single_round_keeps_one_no_more_often_than_it_is_tested_at() -> None:
    for kind in KINDS:
        assert false_keeps(kind, "train", False, 100, rounds=1)[0] <= ALPHA


def test_rows_that_choose_and_decide_alike_do_not_hold_it() -> None:
    """As it once was; without this, the tests above could pass on a simulation that shows nothing."""
    by_round, by_run = false_keeps(BY_NAME["right or wrong"], "shared", False, RUNS)
    assert by_run > 3 * ALPHA
    assert false_keeps(BY_NAME["right or wrong"], "shared", False, 100, rounds=1)[0] > ALPHA > by_round


def test_what_is_worth_much_is_found_all_the_same() -> None:
    assert power(BY_NAME["right or wrong"], "train", True, RUNS, strength=2.4, after=3) > 0.8


def verdict(at: float | None, kept: bool) -> Verdict:
    return Verdict(kept=kept, reason="", before=0, after=0, p_value=0.5, level=at)


def test_a_test_spends_a_third_of_what_is_left_and_one_that_keeps_gives_it_back() -> None:
    first = alpha_to_spend(0.1, [])
    assert first == pytest.approx(0.1 * SHARE)
    assert alpha_to_spend(0.1, [verdict(first, kept=True)]) == first
    assert alpha_to_spend(0.1, [verdict(None, kept=False)]) == first, "nothing was tested, as in an older ledger"
    second = alpha_to_spend(0.1, [verdict(first, kept=False)])
    assert second == pytest.approx((0.1 - first) * SHARE)
    assert alpha_to_spend(0.1, [verdict(first, kept=False), verdict(second, kept=True)]) == second


def test_a_test_that_a_third_would_waste_spends_up_to_half() -> None:
    missed = [verdict(0.1 * SHARE, kept=False)]  # 0.067 is left
    assert alpha_to_spend(0.1, missed, least=1 / 32) == 1 / 32, "five rows are left to mend"
    assert alpha_to_spend(0.1, missed, least=1 / 16) == alpha_to_spend(0.1, missed), "four: more than half would go"
    assert alpha_to_spend(0.1, missed, least=1 / 64) == alpha_to_spend(0.1, missed), "six: a third does"


def test_whatever_is_discarded_all_levels_together_stay_below_alpha() -> None:
    verdicts: list[Verdict] = []
    for place in range(200):
        verdicts.append(verdict(alpha_to_spend(0.1, verdicts, least=0.5 ** (place % 12)), kept=False))
    spent = [judged.level or 0.0 for judged in verdicts]
    assert sum(spent) <= 0.1 and min(spent) >= 0
    assert alpha_to_spend(0.05, verdicts) == 0, "alpha was lowered by hand, and is spent"


def test_the_command_prints_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    from bench.studies.gating import main

    main(1)
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("| style only") for line in lines) == 5
