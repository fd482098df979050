"""Runs that go on from an adapter, a prompt, or a bundle that a user brings."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nesylora
from agent.errors import BadInput
from agent.records.events import Note
from bench.decisions.results import Variant
from bench.decisions.run_variant import finished_run, result
from graphs.approval import instead
from graphs.context import checked, new_run
from graphs.session import open_session
from memory.run.folder import RunFolder
from tests.fixtures.learnable import LEARNABLE, TinyTask
from ui.from_python import settings

Save = Callable[..., Path]
QUIET = ["recall.prompts=0"]


@pytest.fixture
def brought(tiny_model: Callable[[str], Path], tmp_path: Path) -> Save:
    """A LoRA as peft alone makes it, which changes every answer."""

    def save(**options: Any) -> Path:
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        folder = tmp_path / "brought"
        shutil.rmtree(folder, ignore_errors=True)
        torch.manual_seed(0)
        config = LoraConfig(**({"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"]} | options))
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model("llama")), config)
        for weight in model.parameters():
            if weight.requires_grad:
                weight.data.add_(0.2 * torch.randn(weight.shape))
        model.save_pretrained(folder)
        return folder

    return save


def notes(run: RunFolder) -> str:
    return "\n".join(entry.event.text for entry in run.events().entries if isinstance(entry.event, Note))


def files(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ("adapter_model.safetensors", "adapter_config.json")]


def test_a_run_trains_the_adapter_on_that_it_was_given(tiny_task: TinyTask, brought: Save, tmp_path: Path) -> None:
    source = brought()
    task = tiny_task(**LEARNABLE | {"start": {"adapter": "../brought"}, "target": 1.0})
    run = new_run(task, QUIET, tmp_path / "runs", name="on")
    with open_session(run, supervised=True) as session:
        session.go()
        session.go(instead("train_lora", rows="original", epochs=1))
        session.go(instead("rollback", to_round=0))
        session.go(instead("stop"))
    first, outcome, (trained, back, *_) = run.baseline(), run.outcome(), run.rounds()
    assert first is not None and first.start is not None and first.best == first.start and first.start.adapter
    assert files(run.adapter_folder(first.start.adapter)) == files(source)
    assert trained.trial.candidate is not None and trained.trial.candidate.adapter
    made = json.loads((run.adapter_folder(trained.trial.candidate.adapter) / "adapter_config.json").read_text())
    assert (made["r"], sorted(made["target_modules"])) == (2, ["q_proj", "v_proj"]), (
        "its weights go on, not lora.rank 8"
    )
    assert "rank 2 (the task's lora has 8)" in notes(run)
    assert back.trial.candidate == first.start
    assert outcome is not None and outcome.start_test is not None
    assert [name for name, _, _ in outcome.tested] == ["seed prompt", "start", "best pair"]
    assert "Seed prompt alone: reward" in first.note


def test_another_run_takes_up_a_whole_bundle(tiny_task: TinyTask, tmp_path: Path) -> None:
    """Rewards are the same at the start as at the end of the run before; rows, resume and report are as ever."""
    task = tiny_task(**LEARNABLE | {"target": 1.0})
    adapted = nesylora.adapt(task, overrides=[*QUIET, "policy=w"], runs=tmp_path / "runs", name="first")
    assert adapted.adapter is not None
    adapted.export(tmp_path / "bundle")
    again = tiny_task(**LEARNABLE | {"prompt": {}, "start": "../bundle", "target": 1.0})
    went_on = nesylora.adapt(again, overrides=[*QUIET, "budget.rounds=1"], runs=tmp_path / "runs", name="second")
    first = RunFolder.open(went_on.run).baseline()
    assert first is not None and first.start is not None
    [before] = [row.reward for row in RunFolder.open(adapted.run).rounds()][-1:]
    assert first.start_reward == before and first.seed_reward < before
    assert RunFolder.open(went_on.run).prompt(first.start.prompt) == adapted.prompt
    told = json.loads((went_on.export(tmp_path / "other") / "bundle.json").read_text())
    assert told["test"]["reward"] == went_on.outcome.best_test.reward
    assert told["started"] and any("goes on from one that the run was given" in note for note in told["notes"])
    assert not json.loads((tmp_path / "bundle" / "bundle.json").read_text())["started"]
    assert str(tmp_path) not in (tmp_path / "other" / "task.yaml").read_text()
    assert "| start |" in (went_on.run / "report.md").read_text()


def test_a_bundle_without_an_adapter_brings_its_prompt(tiny_task: TinyTask, tmp_path: Path) -> None:
    bundle = nesylora.adapt(tiny_task(), overrides=["budget.rounds=0"], runs=tmp_path / "runs").export(tmp_path / "b")
    task = tiny_task(prompt={}, start=str(bundle))
    read, _ = checked(task)
    assert read.config.start is None and read.config.prompt.system == "Answer the question."
    with pytest.raises(BadInput, match=r"there is no adapter in .*its best pair is a prompt without one"):
        checked(task, [f"start={{adapter: {bundle}}}"])


@pytest.mark.parametrize("words", ["Say it in one word.", "words.txt", "./words.txt"])
def test_the_first_words_may_be_a_text_or_a_file(words: str, tiny_task: TinyTask) -> None:
    task = tiny_task(start={"prompt": words}, prompt={})
    (task / "words.txt").write_text("Say it in one word.\n")
    read, _ = checked(task)
    assert read.config.prompt.system == "Say it in one word." and read.config.start is None
    both = r"override 'start.prompt=.*`start` brings a prompt, and the task has a `prompt` too.*--set prompt=null"
    with pytest.raises(BadInput, match=both):
        checked(task, ["prompt.system=Other.", f"start.prompt={words}"])
    with pytest.raises(BadInput, match=r"override 'start.prompt=lost.txt': the prompt .*lost.txt cannot be read"):
        checked(task, ["start.prompt=lost.txt"])


@pytest.mark.parametrize(
    "overrides", [["start.prompt=program.json", "prompt=null"], {"start": {"prompt": "program.json"}, "prompt": None}]
)
def test_an_override_takes_the_prompt_of_the_file_away(
    overrides: list[str] | dict[str, object], tiny_task: TinyTask
) -> None:
    """A task that `init` wrote has one, and a start brings another. A slip in its path is told at once."""
    task = tiny_task(prompt={"system": "As drafted."})
    (task / "program.json").write_text(
        json.dumps({"predict": {"signature": {"instructions": "As a program has it."}, "demos": []}, "metadata": {}})
    )
    read, _ = checked(task, settings(overrides))
    assert read.config.prompt.system == "As a program has it." and read.config.start is None
    with pytest.raises(BadInput, match=r"the prompt .*nosuch cannot be read"):
        checked(task, ["start=../nosuch"])


def test_an_adapter_that_makes_it_worse_is_left_behind_and_said(
    tiny_task: TinyTask, brought: Save, tmp_path: Path
) -> None:
    task = tiny_task(**LEARNABLE | {"target": 1.0})
    good = nesylora.adapt(task, overrides=[*QUIET, "policy=w"], runs=tmp_path / "runs", name="good")
    assert good.outcome.best_test.reward == 1 and good.adapter is not None
    merged = good.export(tmp_path / "b", merged=True) / "merged"
    brought(r=8, lora_alpha=64)
    task = tiny_task(**LEARNABLE | {"model": str(merged), "start": {"adapter": "../brought"}, "target": 1.0})
    for split in ("validation", "train"):  # enough rows to tell
        rows = [{"question": f"Name mayor {n}.", "answer": "Heskzan"} for n in range(12)]
        (task / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    run = RunFolder.open(nesylora.adapt(task, overrides=QUIET, runs=tmp_path / "runs", name="worse").run)
    first = run.baseline()
    assert first is not None and first.start_reward is not None and first.start_reward < first.seed_reward
    assert first.best == first.seed and "the run begins without it" in first.note


def test_a_killed_run_goes_on_without_what_it_started_from(tiny_task: TinyTask, brought: Save, tmp_path: Path) -> None:
    """The run has a copy of its own; a damaged one comes back from the adapter it was taken from, and no other."""
    source = brought()
    run = new_run(tiny_task(start={"adapter": str(source)}, budget={"rounds": 9}), QUIET, tmp_path / "runs", name="cut")
    with open_session(run, supervised=True) as session:
        session.go()
    first = run.baseline()
    assert first is not None and first.start is not None and first.start.adapter is not None
    source.rename(tmp_path / "kept")
    with open_session(run, supervised=True) as session:
        assert session.go(instead("train_lora", epochs=1)) is not None
    weights = run.adapter_folder(first.start.adapter) / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + b"x")
    (tmp_path / "kept").rename(source)
    with open_session(run, supervised=True) as session:
        session.go(instead("rollback", to_round=0))
        session.go(instead("train_lora", epochs=1))
    assert weights.read_bytes() == whole and "is copied again from" in notes(run)
    weights.write_bytes(b"")
    brought(r=3)
    with open_session(run, supervised=True) as session, pytest.raises(BadInput, match="is another one by now"):
        session.go(instead("rollback", to_round=0))


def test_policies_are_compared_from_the_same_start(tiny_task: TinyTask, brought: Save, tmp_path: Path) -> None:
    task, pool = tiny_task(start={"adapter": str(brought())}, budget={"rounds": 1}), str(tmp_path / "pool")
    runs = [finished_run(task, [f"policy={name}"], tmp_path, name, pool=pool) for name in ("prompt-only", "lora-only")]
    one, other = (result(run, Variant(name=run.name, settings=()), 0, 1.0) for run in runs)
    assert one.baseline == other.baseline
    starts = [run.baseline().start for run in runs]  # type: ignore[union-attr]
    assert starts[0] is not None and starts[0] == starts[1]


@pytest.mark.parametrize("options", [{"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"use_rslora": True}])
def test_other_loras_are_trained_on_as_they_are(
    options: dict[str, Any], tiny_task: TinyTask, brought: Save, tmp_path: Path
) -> None:
    source = brought(**options)
    run = new_run(tiny_task(start={"adapter": str(source)}), QUIET, tmp_path / "runs")
    with open_session(run, supervised=True) as session:
        session.go()
        session.go(instead("train_lora", epochs=1))
    [row] = run.rounds()
    assert row.trial.candidate is not None and row.trial.candidate.adapter is not None, row.trial.note
    made = run.adapter_folder(row.trial.candidate.adapter)
    config = json.loads((made / "adapter_config.json").read_text())
    assert {name: config[name] for name in options} == options

    from safetensors.torch import load_file

    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (source, made))
    assert before.keys() == after.keys()
    assert all(not before[name].equal(after[name]) for name in before if "lora_" in name or "lm_head" in name)


def named(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "adapter_config.json").read_text()) | changes
    (folder / "adapter_config.json").write_text(json.dumps(config))


def cut_off(folder: Path) -> None:
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])


def no_numbers(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "adapter_model.safetensors")
    first = next(iter(weights))
    save_file(weights | {first: weights[first] * float("nan")}, folder / "adapter_model.safetensors")


def pickled(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "of another kind": (lambda folder: named(folder, peft_type="IA3"), "of kind IA3; a run goes on training LoRA only"),
    "prompt tuning": (lambda folder: named(folder, peft_type="PROMPT_TUNING"), "of kind PROMPT_TUNING"),
    "biases of the base": (lambda folder: named(folder, bias="all"), "has `bias`"),
    "pissa": (lambda folder: named(folder, init_lora_weights="pissa"), "weights belong to a base that was changed"),
    "cut off": (cut_off, "is damaged"),
    "no numbers": (no_numbers, "holds values that are no numbers"),
    "a pickle": (pickled, "is a pickle"),
    "gone": (shutil.rmtree, "there is no folder"),
    "no settings": (lambda folder: (folder / "adapter_config.json").unlink(), "it holds no adapter_config.json"),
    "damaged settings": (lambda folder: (folder / "adapter_config.json").write_text("{"), "cannot be read"),
}  # type: ignore[dict-item]


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_trained_on_is_refused_before_a_run_begins(
    fault: str, tiny_task: TinyTask, brought: Save, tmp_path: Path
) -> None:
    spoil, said = FAULTS[fault]
    spoil(brought())
    with pytest.raises(BadInput, match=rf"task\.yaml, line \d+: .*{said}"):
        new_run(tiny_task(start={"adapter": "../brought"}), runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("options", [{"use_dora": True}, {"modules_to_save": ["lm_head"]}])
def test_what_needs_a_whole_base_is_refused_where_it_is_divided(
    options: dict[str, Any], tiny_task: TinyTask, brought: Save
) -> None:
    task = tiny_task(start={"adapter": str(brought(**options))}, processes=2)
    checked(task)
    with pytest.raises(BadInput, match=f"`{next(iter(options))}`, which needs a whole base: set shard: false"):
        checked(task, ["shard=true"])


def test_an_adapter_of_another_base_is_refused(tiny_task: TinyTask, brought: Save, tmp_path: Path) -> None:
    source = brought()
    task = tiny_task(start={"adapter": str(source)}, model="smollm2-135m")
    named(source, base_model_name_or_path="HuggingFaceTB/SmolLM2-360M")
    with pytest.raises(BadInput, match="made on HuggingFaceTB/SmolLM2-360M, and the task's model is smollm2-135m"):
        checked(task)
    named(source, base_model_name_or_path="someone/smollm2-135m-instruct")  # a copy of the same
    checked(task)
    other = brought(target_modules=["q_proj"])
    from safetensors.torch import load_file, save_file

    weights = {
        name: weight[..., :-2].contiguous() for name, weight in load_file(other / "adapter_model.safetensors").items()
    }
    save_file(weights, other / "adapter_model.safetensors")
    run = new_run(tiny_task(start={"adapter": str(other)}), QUIET, tmp_path / "runs", name="other")
    with pytest.raises(BadInput, match="does not fit"), open_session(run) as session:
        session.go()
    assert not run.path.exists()
