"""One loaded model for several runs and threads: each has its own adapters and charges, and undisturbed answers."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from agent.config.lora import Lora
from agent.records.actions import TrainLora
from agent.records.examples import Example, Prompt
from agent.records.rounds import Spend
from agent.records.training import TrainingJob
from tools.memory_budget import MemoryBudget
from tools.model.backbone import Backbone
from tools.training.lora import LoraTrainer

PROMPTS = [Prompt(system="Answer the question."), Prompt(system="Answer in one word, and in no other way.")]
ROWS = [
    Example(name=f"v:{n}", question="Who is the mayor " * (n % 3) + f"of the river {n}?", answer="x") for n in range(6)
]
SAID = [("ANSWER: ", "Heskzan")] * len(ROWS)

Load = Callable[..., Backbone]
Adapters = Callable[..., Path]
Results = tuple[list[str | None], list[float | None], Spend]


def asked(model: Backbone, prompt: Prompt, adapter: str | None) -> Results:
    texts, generated = model.generate(prompt, ROWS, adapter=adapter, max_new_tokens=8)
    losses, read = model.nll(prompt, ROWS, SAID, adapter=adapter)
    return texts, losses, generated + read


@pytest.mark.parametrize("name", ["llama", "lfm2"])
def test_threads_that_ask_at_once_get_what_they_get_one_after_the_other(
    name: str, backbone: Load, random_adapter: Adapters
) -> None:
    """Packed and padded; under two adapters and none, and two prompts whose prefixes differ."""
    ours = backbone(name, batch_size=2)
    for seed, adapter in enumerate(("first", "second")):
        random_adapter(ours, adapter, seed)
    calls = [(prompt, adapter) for prompt in PROMPTS for adapter in ("first", "second", None)] * 2
    wanted = [asked(ours, *call) for call in calls]
    assert len({tuple(losses) for _, losses, _ in wanted}) == 6, "each prompt and adapter says something else"
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda call: asked(ours, *call), calls)) == wanted


def test_who_holds_the_lock_is_not_disturbed(backbone: Load, random_adapter: Adapters) -> None:
    ours = backbone()
    random_adapter(ours, "other")
    begun, done = Event(), Event()

    def ask() -> Results:
        begun.set()
        results = asked(ours, PROMPTS[0], "other")
        done.set()
        return results

    with ThreadPoolExecutor(1) as pool:
        with ours.lock:
            waiting = pool.submit(ask)
            assert begun.wait(10) and not done.wait(0.2)
            mine = asked(ours, PROMPTS[0], None)  # the thread that has it may take it again
        assert waiting.result(60) != mine
        assert asked(ours, PROMPTS[0], None) == mine


def test_views_share_the_weights_and_nothing_of_their_runs(
    backbone: Load, random_adapter: Adapters, tmp_path: Path
) -> None:
    """Two runs may have different weights under one id: a budget may have cut one of the trainings off."""
    charged: dict[str, list[Spend]] = {"one": [], "two": []}
    ours = backbone()
    for seed, run in enumerate(charged):
        random_adapter(ours, f"{run}/same", seed)
    views = {run: ours.view_for((tmp_path / run).joinpath, charge=charges.append) for run, charges in charged.items()}
    assert views["one"].base is views["two"].base is ours.base and views["one"].lock is views["two"].lock
    results = {run: asked(view, PROMPTS[0], "same") for run, view in views.items()}
    assert results["one"][1] != results["two"][1]
    assert {run: asked(view, PROMPTS[0], "same") for run, view in views.items()} == results
    assert {run: sum(parts, Spend()) for run, parts in charged.items()} == {
        run: spend + spend for run, (_, _, spend) in results.items()
    }
    alone = backbone().view_for((tmp_path / "two").joinpath)
    assert asked(alone, PROMPTS[0], "same") == results["two"]


def test_what_memory_was_found_to_hold_is_known_to_all_views(backbone: Load, tmp_path: Path) -> None:
    ours = backbone()
    ours.view_for(tmp_path.joinpath).memory_budget = MemoryBudget(tokens=64)
    assert ours.view_for(tmp_path.joinpath).memory_budget == ours.memory_budget == MemoryBudget(tokens=64)


def test_a_training_and_questions_at_once_disturb_neither(
    backbone: Load, random_adapter: Adapters, tmp_path: Path
) -> None:
    learned = [(PROMPTS[0], row) for row in ROWS]

    def train(model: Backbone, adapter: str, started: Event) -> list[float]:
        trainer = LoraTrainer(model, Lora(rank=4, batch_size=2), lambda *_: started.set())
        action = TrainLora(epochs=2, rank=4, learning_rate=1e-2)
        folder = tmp_path / adapter
        job = TrainingJob(adapter=adapter, rows=learned, action=action, folder=folder, parent=None, seed=0)
        return [step.loss for step in trainer.train(job).steps]

    ours, alone = backbone(), backbone()
    random_adapter(ours, "tuned")
    wanted = asked(ours, PROMPTS[0], "tuned")
    started = Event()
    with ThreadPoolExecutor(2) as pool:
        training = pool.submit(train, ours, "beside", started)
        assert started.wait(60)
        assert pool.submit(asked, ours, PROMPTS[0], "tuned").result(60) == wanted
        assert training.result(60) == train(alone, "alone", Event())
    assert asked(ours, PROMPTS[0], "beside") == asked(alone, PROMPTS[0], "alone")


def test_an_adapter_is_active_in_every_layer_after_another_is_gone(backbone: Load, tmp_path: Path) -> None:
    """peft lets each layer go over to the first that it has left, by name: not the same one in all layers."""
    import torch
    from peft import LoraConfig

    ours = backbone()
    layers = {"first": ["q_proj", "v_proj"], "extra": ["v_proj"], "last": ["q_proj", "v_proj"]}
    for adapter, names in layers.items():
        torch.manual_seed(len(adapter))
        ours.create(adapter, LoraConfig(r=2, init_lora_weights=False, target_modules=names))
        ours.save(adapter, tmp_path / adapter)
    wanted = asked(ours, PROMPTS[0], "last")
    ours.attach("first")
    ours.detach("first")
    assert asked(ours, PROMPTS[0], "last") == wanted
