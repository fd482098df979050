"""Who takes part in a benchmark, and that a row on disk is not run again."""

from pathlib import Path
from typing import Any

import pytest

from agent.errors import BadInput
from agent.records.examples import Candidate
from agent.records.rounds import Spend, SplitResult
from bench.decisions.results import Reached, Result, Variant, described, named, read, run_all


def a_result(
    policy: str = "rules", seed: int = 0, rewards: tuple[float, ...] = (1.0, 0.0), at: int | None = None, **changes: Any
) -> Result:
    """A run of this policy with these rewards on the test rows, which reached the target after `at` passes."""
    mean = sum(rewards) / len(rewards)
    pair = SplitResult(
        candidate=Candidate(prompt="0" * 12), reward=mean, low=0, high=1, content=mean, style=1, rows=len(rewards)
    )
    facts = {
        "task": "mayors", "policy": policy, "settings": (f"policy={policy}",), "seed": seed, "run": "run", "rounds": 1,
        "kept_edits": 0, "kept_lora": 1, "spend": Spend(generated_tokens=changes.pop("passes", 100)), "baseline": pair,
        "best": pair, "rewards": {f"test:{row}": reward for row, reward in enumerate(rewards, 1)}, "target": 0.9,
        "reached": None if at is None else Reached(passes=at, seconds=1), "levers": "w✓", "stopped": "",
    }  # fmt: skip
    return Result.model_validate(facts | changes)


def test_a_policy_may_do_without_faculties() -> None:
    assert named("p -> w").settings == ("policy=p -> w",)
    assert named("rules without gate, memory").settings == ("policy=rules", "without=[gate, memory]")


def test_a_variant_has_settings_of_its_own() -> None:
    variant = described("learned 50: policy=learned experience='a folder/x.json'")
    assert variant == Variant(name="learned 50", settings=("policy=learned", "experience=a folder/x.json"))


@pytest.mark.parametrize("text", ["learned 50", "x:", ": policy=rules", "x: policy", "x: =3", "x: a='b"])
def test_a_variant_that_says_nothing_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadInput, match="NAME: KEY=VALUE"):
        described(text)


def test_other_settings_under_the_same_name_have_another_folder() -> None:
    slow, slower = described("slow: lora.epochs=9"), described("slow: lora.epochs=12")
    assert slow.folder != slower.folder
    assert named("p -> w").folder != named("p w").folder


def run_anew(file: Path, variants: list[Variant]) -> list[str]:
    names = []

    def run(variant: Variant, seed: int) -> Result:
        names.append(f"{variant.name}-{seed}")
        return a_result(variant.name, seed, settings=variant.settings)

    rows = list(run_all(variants, [0, 1], run, file))
    assert [(row.policy, row.seed) for row in rows] == [(variant.name, seed) for seed in (0, 1) for variant in variants]
    return names


def test_what_was_run_is_not_run_again_but_a_torn_row_is(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    rules, lora = named("rules"), named("lora-only")
    assert run_anew(file, [rules]) == ["rules-0", "rules-1"]
    assert run_anew(file, [rules, lora]) == ["lora-only-0", "lora-only-1"]
    file.write_bytes(file.read_bytes()[:-30])
    assert run_anew(file, [rules, lora]) == ["lora-only-1"]
    assert len(read(file)) == 4
    file.write_bytes(file.read_bytes() + '{"levers":"w✓'.encode()[:-1])  # within a letter
    assert len(read(file)) == 4
    assert run_anew(file, [described("rules: policy=rules lora.epochs=9")]) == ["rules-0", "rules-1"]
