"""One budget of money for the night: shared by its tasks, and counted over kills, with a real server's bills."""

import os
import shutil
import signal
from pathlib import Path

import pytest
import yaml

from agent.errors import BadInput, OutOfMoney
from agent.records.queue import NightLimits, TaskStarted
from agent.records.rounds import Usage
from agent.signal.run_costs import Tried
from graphs.context import Context, new_run
from graphs.control.steering import RunStatus
from graphs.queue.foreman import Foreman
from graphs.queue.making import new_queue, take_up
from graphs.queue.shares import spend_of
from graphs.services.run import RunServices
from memory.queue import now
from memory.run.folder import RunFolder
from tests.fixtures.learnable import TinyTask
from tests.graphs.queue.nights import Seen
from tests.llm.scripted_llm import scripted_llm
from tests.llm.server import serving

IN, OUT, NIGHT = 0.4, 1.6, 0.012  # USD per million tokens, and for the night


pytestmark = pytest.mark.usefixtures("forked_workers")


@pytest.fixture(autouse=True)
def no_probe_and_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphs.queue.estimate.probe", lambda tasks: [Tried()] * len(tasks))
    monkeypatch.setenv("MAYOR_KEY", "sk-marked-5f0c1d7e9b")


def test_the_money_of_a_night_is_shared_and_kept_over_a_kill(tiny_task: TinyTask, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill(seen: tuple[RunFolder, RunStatus]) -> None:
        if seen[1].rounds == 1 and seen[1].pid and not killed:
            killed.append(seen[1].pid)
            os.kill(seen[1].pid, signal.SIGKILL)

    with serving(scripted_llm) as server:
        settings = {"model": "mind-1", "base_url": server.url, "key_variable": "MAYOR_KEY", "patience": 0}
        llm = settings | {"price": {"input": IN, "output": OUT}, "cache": False}
        first = tiny_task(planner="llm", llm=llm, lora={"epochs": 1, "rank": 4, "batch_size": 4, "replay": 0})
        second = tmp_path / "second"
        shutil.copytree(first, second)
        config = yaml.safe_load((second / "task.yaml").read_text())
        (second / "task.yaml").write_text(yaml.safe_dump(config | {"name": "second"}))
        queue = new_queue([first, second], NightLimits(usd=NIGHT), tmp_path / "runs", ["budget.rounds=2"])
        seen = Seen(at_run=kill)
        end = Foreman(queue, seen, (0.0, 0.0)).work()
        billed = server.billed(IN, OUT)
    assert killed and seen.ends == [(1, "finished"), (2, "finished")]
    runs = [RunFolder.open(queue.root / item.run) for item in queue.read().items]
    spent = [run.outcome().spend.usd for run in runs]  # type: ignore[union-attr]
    assert end.spend.usd == pytest.approx(sum(spent), abs=1e-9) and spend_of(queue, queue.read()).usd == end.spend.usd
    assert billed - 1e-9 <= end.spend.usd <= NIGHT  # what was out at the kill stays charged at its most
    limits = [yaml.safe_load(run.task_file.read_text())["budget"]["usd"] for run in runs]
    assert limits[0] == pytest.approx(NIGHT / 2) and limits[1] == pytest.approx(NIGHT - spent[0])
    assert all(usd <= limit for usd, limit in zip(spent, limits, strict=True))


def test_money_cannot_be_limited_where_no_price_is_known(tiny_task: TinyTask, tmp_path: Path) -> None:
    task = tiny_task(planner="llm", llm={"model": "mind-1", "base_url": "http://127.0.0.1:9"})
    with pytest.raises(BadInput, match=r"money is limited, which needs `llm\.price: .* \(of the planner\)"):
        new_queue([task], NightLimits(usd=1), tmp_path / "runs")


@pytest.mark.parametrize("begun", [False, True])
def test_money_cannot_be_limited_later_where_no_price_is_known(
    tiny_task: TinyTask, tmp_path: Path, begun: bool
) -> None:
    llm = {"model": "mind-1", "base_url": "http://127.0.0.1:9"}
    queue = new_queue([tiny_task(planner="llm", llm=llm)], NightLimits(), tmp_path / "runs")
    if begun:
        run = new_run(Path(queue.read().items[0].added.task), runs=queue.root)
        queue.append(lambda _: TaskStarted(time=now(), number=1, run=run.name))
    with pytest.raises(BadInput, match=r"money is limited, which needs `llm\.price: .* \(of the planner\)"):
        take_up(queue, NightLimits(usd=0.5))
    assert take_up(queue, NightLimits(minutes=99)).limits == NightLimits(minutes=99)
    if begun:
        config = yaml.safe_load(run.task_file.read_text())
        config["llm"]["price"] = {"input": IN, "output": OUT}
        run.task_file.write_text(yaml.safe_dump(config))
        assert take_up(queue, NightLimits(usd=0.5)).limits.usd == 0.5


@pytest.mark.parametrize("more", [{"llm_tokens": 10_000}, {"usd": 1.0}], ids=["tokens", "money"])
def test_money_and_tokens_that_a_run_is_given_while_it_works_are_to_be_had(
    tiny_task: TinyTask, tmp_path: Path, more: dict[str, float]
) -> None:
    llm = {"model": "mind-1", "base_url": "http://127.0.0.1:9", "price": {"input": IN, "output": OUT}}
    whole = {"llm_tokens": 10_000, "usd": 1.0}
    own = whole | ({"llm_tokens": 100} if "llm_tokens" in more else {"usd": 0.01})
    run = new_run(tiny_task(planner="llm", llm=llm, budget={"rounds": 2, **own}), runs=tmp_path / "runs")
    services, most = RunServices(Context(run=run.path)), Usage(calls=1, input_tokens=5000, usd=0.5)
    assert services.spec.config.budget.rounds == 2
    with pytest.raises(OutOfMoney):
        services.llm.budget.reserve("planner", "mind-1", most)
    run.extend(services.spec.config.limits.model_copy(update=more))
    services.take_up_limits()
    assert services.llm.budget.reserve("planner", "mind-1", most).usage == most
