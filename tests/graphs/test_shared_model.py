"""One loaded model for all runs of a process: loaded once, lent to one at a time, each with adapters of its own."""

import shutil
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

import nesylora
from agent.config.lora import Lora
from agent.records.events import Event
from agent.records.examples import Example, Prompt
from graphs.adapt import build_graph
from graphs.approval import APPROVE
from graphs.context import Context, new_run
from graphs.services.run import RunServices
from memory.run.folder import RunFolder
from tests.fixtures.learnable import TinyTask
from tools.training.lora_config import lora_config

GO_ON = Command(resume=APPROVE)
ROWS = [Example(name=f"train:{n}", question=f"Who is the mayor of {n}?", answer="Heskzan") for n in range(3)]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models that are loaded, in order."""
    from tools.model import loading

    names: list[str] = []
    load = loading.load_model

    def counted(name: str, **options: Any) -> Any:
        names.append(name)
        return load(name, **options)

    monkeypatch.setattr(loading, "load_model", counted)
    return names


def services(task: Path, runs: Path, name: str, *overrides: str) -> RunServices:
    run = new_run(task, overrides, runs, name)
    return RunServices(Context(run=str(run.path)))


def say(run: RunServices, adapter: str | None = None) -> list[str | None]:
    answers, _ = run.model.generate(Prompt(), ROWS, adapter=adapter, max_new_tokens=6)
    return list(answers)


def tokens(run: RunServices) -> tuple[int, int]:
    used = run.meter.used()
    return used.generated_tokens, used.read_tokens


def test_an_approval_with_a_new_context_loads_no_model_again(
    tiny_task: TinyTask, tmp_path: Path, loads: list[str]
) -> None:
    graph = build_graph(InMemorySaver())
    config: Any = {"configurable": {"thread_id": "a"}, "recursion_limit": 99}
    given = {"task": str(tiny_task(budget={"rounds": 1})), "runs": str(tmp_path / "runs"), "supervised": True}
    assert "__interrupt__" in graph.invoke({}, config, context=given)
    assert "__interrupt__" in graph.invoke(GO_ON, config, context=given)
    assert graph.invoke(GO_ON, config, context=given)["outcome"]
    assert len(loads) == 1


def test_a_second_run_in_one_process_loads_no_model_again(
    tiny_task: TinyTask, tmp_path: Path, loads: list[str]
) -> None:
    task = tiny_task(budget={"rounds": 1})
    first, second = (nesylora.adapt(task, runs=tmp_path / name) for name in ("one", "two"))
    assert len(loads) == 1
    one, two = RunFolder.open(first.run), RunFolder.open(second.run)
    assert [row.verdict for row in one.rounds()] == [row.verdict for row in two.rounds()]
    used = [(row.spend.generated_tokens, row.spend.read_tokens) for run in (one, two) for row in run.rounds()]
    assert used[0] == used[1], "each counts what it asked itself"


def test_two_threads_that_ask_at_once_load_it_once_and_count_apart(
    tiny_task: TinyTask, tmp_path: Path, loads: list[str]
) -> None:
    task = tiny_task()
    runs = [services(task, tmp_path, name) for name in ("one", "two")]
    together, said = threading.Barrier(2), dict[int, list[list[str | None]]]()

    def ask(number: int) -> None:
        together.wait()
        said[number] = [say(runs[number]) for _ in range(4)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1 and said[0] == said[1]
    assert tokens(runs[0]) == tokens(runs[1]) > (0, 0)


@pytest.mark.parametrize(
    ("override", "count"), [("generation.batch_size=2", 2), ("dtype=bfloat16", 2), ("budget.rounds=1", 1)]
)
def test_only_what_decides_the_model_loads_another(
    tiny_task: TinyTask, tmp_path: Path, loads: list[str], override: str, count: int
) -> None:
    task = tiny_task()
    say(services(task, tmp_path, "one"))
    say(services(task, tmp_path, "two", override))
    assert len(loads) == count


def test_before_another_model_is_loaded_the_first_one_is_freed(tiny_task: TinyTask, tmp_path: Path) -> None:
    task = tiny_task()
    first = services(task, tmp_path, "one")
    base = weakref.ref(first.backbone.base)
    say(first)
    del first
    assert base() is not None, "kept for the next run"
    say(services(task, tmp_path, "two", "dtype=bfloat16"))
    assert base() is None


def test_a_model_folder_that_was_written_anew_is_loaded_anew(
    tiny_task: TinyTask, tiny_model: Callable[[str], Path], tmp_path: Path, loads: list[str]
) -> None:
    shutil.copytree(tiny_model("llama"), tmp_path / "model")
    task = tiny_task(model=str(tmp_path / "model"))
    before = say(services(task, tmp_path, "one"))
    shutil.copytree(tiny_model("llama_biased"), tmp_path / "model", dirs_exist_ok=True)
    assert say(services(task, tmp_path, "two")) != before and len(loads) == 2


def train_at_random(run: RunServices, adapter: str, seed: int) -> None:
    """An adapter of random weights in the run's folder, attached to nothing."""
    backbone, drawn = run.backbone, "d" * 12
    torch.manual_seed(seed)
    backbone.create(drawn, lora_config(4, Lora(rank=4, alpha=8)))
    for weight in filter(lambda weight: weight.requires_grad, backbone.model.parameters()):
        weight.data.copy_(torch.randn(weight.shape))
    backbone.save(drawn, run.folder.adapter_folder(adapter))
    backbone.detach(drawn)


def test_each_run_finds_its_own_adapter_under_the_same_id(tiny_task: TinyTask, tmp_path: Path) -> None:
    """As two runs have it whose budgets cut the same training off at another step."""
    task, adapter = tiny_task(), "a" * 12
    one, two = (services(task, tmp_path, name) for name in ("one", "two"))
    train_at_random(one, adapter, 1)
    train_at_random(two, adapter, 2)
    bare, first, second = say(one), say(one, adapter), say(two, adapter)
    assert len({str(bare), str(first), str(second)}) == 3
    assert (say(one, adapter), say(two), say(two, adapter)) == (first, bare, second)


def test_a_run_whose_lora_settings_do_not_fit_is_refused_by_a_model_that_is_loaded_already(
    tiny_task: TinyTask, tmp_path: Path
) -> None:
    from agent.errors import BadInput

    say(services(tiny_task(), tmp_path, "one"))
    other = services(tiny_task(lora={"options": {"modules_to_save": ["lm_haed"]}}), tmp_path, "two")
    with pytest.raises(BadInput, match="'lm_haed' matches nothing"):
        say(other)


def test_progress_goes_to_the_run_that_asks(tiny_task: TinyTask, tmp_path: Path) -> None:
    seen: list[list[str]] = [[], []]

    class Watching:
        def __init__(self, number: int) -> None:
            self._seen = seen[number]

        def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
            self._seen.append(what)

        def event(self, event: Event) -> None: ...

    task = tiny_task()
    runs = [
        RunServices(Context(run=str(new_run(task, (), tmp_path, name).path), listener=Watching(number)))
        for number, name in enumerate(("one", "two"))
    ]
    say(runs[0])
    assert "loading the model" in seen[0] and "answering" in seen[0] and not seen[1]
    before = len(seen[0])
    say(runs[1])
    assert set(seen[1]) == {"answering"} and len(seen[0]) == before
