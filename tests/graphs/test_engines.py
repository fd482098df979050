"""A run whose answers come from an engine: the same pairs, rewards and tokens as one that answers for itself."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import pytest
import yaml

import nesylora
from agent.config.llm import Price
from agent.errors import BadInput, NesyLoraError
from agent.records.events import Note
from agent.records.examples import Candidate, Prompt
from eval.tasks.task import load_task
from export.portable import portable_settings
from graphs.approval import instead
from graphs.context import Context, new_run
from graphs.services import shared_engine
from graphs.services.run import RunServices
from graphs.session import open_session
from memory.run.folder import RunFolder
from tests.fixtures.learnable import LEARNABLE, TinyTask
from tests.fixtures.scripted_vllm import ScriptedVllm, interpreter, scripted_vllm
from tools.engines import starting
from ui import wording
from ui.cli import run as command


class Bought(NamedTuple):
    run: RunFolder
    server: ScriptedVllm


WORDS = ["generation.engine=openai", "generation.url=http://127.0.0.1:1/v1", "policy=prompt-only"]


@pytest.fixture
def served(tiny_model: Callable[[str], Path]) -> Iterator[ScriptedVllm]:
    with scripted_vllm(tiny_model("llama"), "tiny") as server:
        yield server


@pytest.fixture
def started() -> Iterator[None]:
    yield
    shared_engine.stop()


def rounds(run: Path) -> list[Any]:
    return [
        (row.decision.move, row.best, row.verdict.kept, row.verdict.before, row.verdict.after)
        for row in RunFolder.open(run).rounds()
    ]


def test_a_run_behind_a_server_makes_the_rounds_of_one_without(
    tiny_task: TinyTask, served: ScriptedVllm, tmp_path: Path
) -> None:
    task = tiny_task(**LEARNABLE, budget={"rounds": 2}, edit={"retrieve": 0})
    settings = ["recall.prompts=0", "generation.engine=vllm", f"generation.url={served.url}"]
    own = nesylora.adapt(task, runs=tmp_path / "own", overrides={"recall": {"prompts": 0}})
    run = new_run(task, settings, tmp_path / "there", "first")
    there = nesylora.resume(run.path)
    assert rounds(there.run) == rounds(own.run)
    assert there.outcome.best_test.reward == own.outcome.best_test.reward
    asked = [path for path, _ in served.asked]
    assert there.adapter is not None and "/v1/load_lora_adapter" in asked, "weights were trained and served"
    assert "/v1/completions" in asked and served.loaded == {}, "the run has ended"


def test_words_are_adapted_for_a_model_without_weights_here(
    tiny_task: TinyTask, served: ScriptedVllm, tmp_path: Path
) -> None:
    task = tiny_task(**LEARNABLE, budget={"rounds": 1}, edit={"retrieve": 0}, policy="prompt-only", model="tiny")
    there = nesylora.adapt(task, runs=tmp_path / "runs", overrides=_openai(served))
    folder = RunFolder.open(there.run)
    assert {row.decision.move.action for row in folder.rounds()} == {"edit_prompt"}
    assert there.adapter is None and there.outcome.spend.generated_tokens > 0
    assert there.outcome.spend.read_tokens == sum(served.read)
    assert there.generate("Who is the mayor of Benn?") != ""
    with pytest.raises(BadInput, match="needs the weights of 'tiny'"):
        there.export()


def test_a_user_who_asks_for_training_without_weights_is_told_and_asked_again(
    tiny_task: TinyTask, served: ScriptedVllm, tmp_path: Path
) -> None:
    task = tiny_task(policy="prompt-only", model="tiny")
    run = new_run(task, [f"{key}={value}" for key, value in _flat(_openai(served))], tmp_path / "runs", "a")
    with open_session(run, supervised=True) as session:
        assert session.go() is not None
        question = session.go(instead("train_lora", epochs=1))
        assert question is not None and "needs the weights" in question.fault


ONE_BY_ONE = {"max_new_tokens": 4, "batch_size": 1}
PRICED = {"input": 1000.0, "output": 0.0}  # so that a tiny prompt costs cents


@pytest.fixture(scope="module")
def bought(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bought]:
    """A run whose answers cost so much that the first round is broken off."""
    place = tmp_path_factory.mktemp("bought")
    folder = place / "task"
    folder.mkdir()
    for split in ("train", "validation", "test"):
        rows = [{"question": f"{split} {word}?", "answer": "Heskzan"} for word in ("a", "b", "c", "d")]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with scripted_vllm(tiny_model("llama"), "tiny") as server:
        settings = {
            "name": "bought", "model": "tiny", "policy": "prompt-only", "recall": {"prompts": 0},
            "data": {split: f"{split}.jsonl" for split in ("train", "validation", "test")},
            "content": [{"kind": "contains"}], "style": [{"kind": "starts_with", "text": "ANSWER: "}],
            "generation": {"engine": "openai", "url": server.url, "price": PRICED} | ONE_BY_ONE,
            "budget": {"usd": 0.4, "rounds": 3},
        }  # fmt: skip
        (folder / "task.yaml").write_text(yaml.safe_dump(settings))
        run = nesylora.adapt(folder, runs=place / "runs").run
        yield Bought(RunFolder.open(run), server)


def test_a_budget_of_money_breaks_the_round_off_and_ends_the_run(bought: Bought) -> None:
    [row], outcome = bought.run.rounds(), bought.run.outcome()
    why = "Broken off: the budget of 0.4 USD is used up."
    assert row.trial.cancelled and row.trial.note == row.verdict.reason == why
    assert outcome is not None and outcome.stopped == "The budget of 0.4 USD is used up."
    paid = bought.server.read[: row.usage["engine"].calls]
    assert sum(paid) >= 400 > sum(paid[:-1]), "nothing is asked for once it is used up"
    assert row.spend.usd == row.usage["engine"].usd == pytest.approx(sum(paid) / 1000)
    assert [*outcome.usage] == ["engine"]
    assert outcome.usage["engine"].input_tokens == sum(bought.server.read) == outcome.spend.read_tokens
    assert outcome.usage["engine"].usd == pytest.approx(sum(bought.server.read) / 1000) == outcome.spend.usd


def test_what_answers_cost_is_in_the_report(bought: Bought) -> None:
    outcome, page = bought.run.outcome(), bought.run.report_md.read_text().replace("\\", "")
    assert outcome is not None
    assert "## Paid answers" in page and "| engine | tiny | " in page and "No external LLM: decided by" in page
    assert f"{wording.money(outcome.spend.usd)} of the budget of {wording.money(0.4)}" in page
    assert "Broken off: the budget of 0.4 USD is used up." in page


def test_the_llm_s_price_holds_for_the_same_model_and_a_queue_keeps_money_for_it(tiny_task: TinyTask) -> None:
    words = {
        "policy": "prompt-only",
        "model": "tiny",
        "generation": {"engine": "openai", "url": "http://127.0.0.1:1/v1"},
    }
    llm = {"model": "tiny", "base_url": "http://127.0.0.1:1/v1", "price": {"input": 2.0, "output": 8.0}}
    config = load_task(tiny_task(**words, llm=llm, budget={"usd": 1})).config
    assert config.answer_price == Price(input=2.0, output=8.0) and config.pays
    other = load_task(tiny_task(**words, llm=llm | {"model": "other"})).config
    assert other.answer_price is None and "generation.price" in other.unpriced
    own = other.model_copy(update={"generation": other.generation.model_copy(update={"price": Price()})})
    assert own.answer_price == Price() and not own.unpriced, "a server of one's own costs nothing"


@pytest.mark.parametrize("fate", ["refuse", "wrong"])
def test_a_row_that_the_server_calls_too_long_follows_the_setting(
    fate: str, tiny_task: TinyTask, served: ScriptedVllm, tmp_path: Path
) -> None:
    task = tiny_task(policy="prompt-only", model="tiny", budget={"rounds": 0})
    rows = (task / "validation.jsonl").read_text().splitlines()
    rows[1] = json.dumps({"question": "0 1 2 " * 600, "answer": "Gallune"})
    (task / "validation.jsonl").write_text("\n".join(rows))
    settings = [f"{key}={value}" for key, value in _flat(_openai(served))]
    run = new_run(task, [*settings, f"data.too_long={fate}"], tmp_path / "runs", "a")
    if fate == "refuse":
        for _ in range(2):  # whatever was stored
            with pytest.raises(BadInput, match=r"1 validation row of mayors too long.*validation:2.*too_long to wrong"):
                nesylora.resume(run.path)
        run.task_file.write_text(run.task_file.read_text().replace("too_long: refuse", "too_long: wrong"))
    assert nesylora.resume(run.path).outcome.best_test.rows == 4
    said = [entry.event.text for entry in run.events().entries if isinstance(entry.event, Note)]
    ending = {"refuse": "ends the run", "wrong": "counts as wrong"}[fate]
    assert any(text.startswith("Warning: Rows are not measured") and ending in text for text in said)


def _openai(served: ScriptedVllm) -> dict[str, Any]:
    return {"generation": {"engine": "openai", "url": served.url}, "recall": {"prompts": 0}}


def _flat(settings: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(f"{outer}.{inner}", value) for outer, own in settings.items() for inner, value in own.items()]


def test_where_an_engine_stands_does_not_leave_with_a_bundle(tiny_task: TinyTask, tmp_path: Path) -> None:
    settings = ["generation.engine=vllm", "generation.url=http://10.0.0.7:8000/v1", "generation.key_variable=OURS"]
    given = portable_settings(load_task(tiny_task(), settings).config, None)
    assert given["generation"]["engine"] == "own"
    assert "10.0.0.7" not in str(given) and "OURS" not in str(given)


def test_scores_of_one_engine_are_not_taken_for_anothers(
    tiny_task: TinyTask, served: ScriptedVllm, tmp_path: Path
) -> None:
    run = new_run(tiny_task(), ["generation.engine=vllm", f"generation.url={served.url}"], tmp_path / "runs", "a")
    nesylora_run = RunServices(Context(run=str(run.path)))
    there = nesylora_run.evaluate._key(nesylora_run.spec.validation[0])
    mine = new_run(tiny_task(), (), tmp_path / "runs", "b")
    own = RunServices(Context(run=str(mine.path)))
    assert own.evaluate._key(own.spec.validation[0]) != there


def test_a_run_whose_server_was_away_goes_on_at_its_new_address(
    tiny_task: TinyTask, served: ScriptedVllm, tmp_path: Path
) -> None:
    away = "http://127.0.0.1:9/v1"
    settings = ["generation.engine=vllm", f"generation.url={away}", "generation.patience=0", "recall.prompts=0"]
    run = new_run(tiny_task(budget={"rounds": 0}, model=str(served.folder)), settings, tmp_path / "runs", "a")
    with pytest.raises(NesyLoraError, match="nesylora resume"):
        nesylora.resume(run.path)
    run.task_file.write_text(run.task_file.read_text().replace(away, served.url))
    assert nesylora.resume(run.path).outcome.best_test.rows == 4


def test_an_api_that_has_moved_is_not_asked_again_what_it_has_answered(
    tiny_task: TinyTask, served: ScriptedVllm, tmp_path: Path
) -> None:
    settings = [f"{key}={value}" for key, value in _flat(_openai(served))]
    run = new_run(tiny_task(policy="prompt-only", model="tiny"), settings, tmp_path / "runs", "a")
    seed = Candidate(prompt=run.save_prompt(Prompt()))

    def asked(engine: ScriptedVllm) -> int:
        RunServices(Context(run=str(run.path))).evaluate(seed, "validation")
        return len(engine.asked)

    assert asked(served) > 0
    with scripted_vllm(served.folder, "tiny", says=[70, 1]) as elsewhere:
        run.task_file.write_text(run.task_file.read_text().replace(served.url, elsewhere.url))
        assert asked(elsewhere) == 0


@pytest.mark.parametrize("engine", ["vllm", "openai"])
def test_eval_answers_through_the_tasks_engine(
    engine: str, tiny_task: TinyTask, served: ScriptedVllm, capsys: pytest.CaptureFixture[str]
) -> None:
    served.asked.clear()
    changes = {} if engine == "vllm" else {"policy": "prompt-only", "model": "tiny"}
    task = tiny_task(**changes, generation={"engine": engine, "url": served.url, "max_new_tokens": 4})
    assert command(["eval", str(task)]) == 0
    assert "joint reward" in capsys.readouterr().out
    path = "/v1/completions" if engine == "vllm" else "/v1/chat/completions"
    assert sum(asked == path for asked, _ in served.asked) == 4, "the validation rows"


def test_eval_says_what_it_cost_and_holds_to_a_budget(
    tiny_task: TinyTask, served: ScriptedVllm, capsys: pytest.CaptureFixture[str]
) -> None:
    paid = {"engine": "openai", "url": served.url, "max_new_tokens": 4, "price": {"input": 1e4, "output": 1e4}}
    task = str(tiny_task(policy="prompt-only", model="tiny", generation=paid))
    assert command(["eval", task, "--set", "budget.usd=1000"]) == 0
    assert "tokens of hosted models" in capsys.readouterr().out
    assert command(["eval", task, "--set", "budget.usd=0.01"]) != 0
    said = capsys.readouterr()
    assert "so there is no score" in said.err and "joint reward" not in said.out


def test_eval_says_that_an_adapter_needs_weights(
    tiny_task: TinyTask, served: ScriptedVllm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = tiny_task(policy="prompt-only", model="tiny", generation={"engine": "openai", "url": served.url})
    assert command(["eval", str(task), "--adapter", str(tmp_path)]) == 2
    assert "needs the weights of 'tiny'" in capsys.readouterr().err


def test_answers_that_runs_share_are_kept_apart_by_engine(
    tiny_task: TinyTask, served: ScriptedVllm, tmp_path: Path
) -> None:
    def asked(name: str, *settings: str) -> int:
        run = new_run(tiny_task(model=str(served.folder)), settings, tmp_path / "runs", name)
        services = RunServices(Context(run=str(run.path), pool=str(tmp_path / "pool")))
        before = len(served.asked)
        services.model.generate(Prompt(), services.spec.validation, adapter=None, max_new_tokens=2)
        return len(served.asked) - before

    engine = ("generation.engine=vllm", f"generation.url={served.url}")
    assert asked("own") == 0
    assert asked("there", *engine) > 4
    assert asked("again", *engine) == 0


def test_vllm_is_started_in_an_environment_of_its_own_and_again_by_the_process_that_resumes(
    tiny_task: TinyTask, tmp_path: Path, started: None
) -> None:
    settings = ["generation.engine=vllm", f"generation.python={interpreter(tmp_path)}"]
    settings += ["recall.prompts=0", "generation.arguments=['--says', '70', '71', '1']"]  # needs no torch
    run = new_run(tiny_task(budget={"rounds": 0}), settings, tmp_path / "runs", "a")
    first = nesylora.resume(run.path)
    assert first.outcome.baseline_test.rows == 4
    assert "loading" in (run.path / shared_engine.LOG).read_text()
    [first_one] = shared_engine._started.values()
    shared_engine.stop()
    assert not first_one.server.alive
    nesylora.resume(new_run(tiny_task(budget={"rounds": 0}), settings, tmp_path / "runs", "b").path)
    [again] = shared_engine._started.values()
    assert again is not first_one and again.server.alive and not again.users


@pytest.fixture
def ask(tiny_task: TinyTask, tmp_path: Path, started: None) -> Callable[..., RunServices]:
    """A run that has had answers from a vLLM that this process has started."""

    def asked(name: str, *settings: str) -> RunServices:
        ours = ["generation.engine=vllm", f"generation.python={interpreter(tmp_path)}"]
        ours += ["generation.arguments=['--says', '70', '71', '1']", *settings]
        run = new_run(tiny_task(budget={"rounds": 0}), ours, tmp_path / "runs", name)
        services = RunServices(Context(run=str(run.path)))
        services.lock()
        texts, _ = services.model.generate(Prompt(), services.spec.validation, adapter=None, max_new_tokens=2)
        assert None not in texts
        return services

    return asked


def test_runs_of_a_process_share_a_vllm_that_ends_when_nobody_uses_it_and_another_is_needed(
    ask: Callable[..., RunServices],
) -> None:
    first = ask("a")
    second = ask("b", "generation.batch_size=2", "generation.patience=5", "generation.answer_seconds=60")
    [shared] = shared_engine._started.values()
    other = "generation.arguments=['--says', '71', '1']"
    third = ask("c", other)
    assert shared.server.alive and len(shared_engine._started) == 2
    first.unlock()
    third.unlock()
    fourth = ask("d", "generation.arguments=['--says', '1']")  # in place of the other, which is idle
    assert shared.server.alive and len(shared_engine._started) == 2
    second.unlock()
    fourth.unlock()
    ask("e", other).unlock()
    assert not shared.server.alive and len(shared_engine._started) == 1
    shared.server.log.unlink()  # a run that was never begun takes its folder away
    assert "Its log is" in shared.server.last_words()


def test_a_vllm_that_we_start_answers_nobody_else_and_its_key_is_nowhere(ask: Callable[..., RunServices]) -> None:
    services = ask("a")
    [shared] = shared_engine._started.values()
    key = shared.server._key
    assert len(key) > 30 and httpx.get(f"{shared.server.url}/models", trust_env=False).status_code == 401
    beside = psutil.Process(shared.server._process.pid)
    for process in (beside, *beside.children(recursive=True)):
        assert key not in " ".join(process.cmdline())
    written = [file for file in services.folder.path.rglob("*") if file.is_file()]
    assert written and not any(key.encode() in file.read_bytes() for file in written)


def test_a_port_that_another_program_takes_meanwhile_is_left_to_it(
    ask: Callable[..., RunServices], served: ScriptedVllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = [int(served.url.split(":")[2].removesuffix("/v1"))]
    free = starting._free_port
    monkeypatch.setattr(starting, "_free_port", lambda: ports.pop() if ports else free())
    services = ask("a")
    assert "/v1/completions" not in [path for path, _ in served.asked]
    assert "ddress already in use" in (services.folder.path / shared_engine.LOG).read_text()


def test_a_vllm_that_we_started_is_waited_for_as_patiently_as_any(ask: Callable[..., RunServices]) -> None:
    busy = "generation.arguments=['--says', '70', '1', '--busy', '1']"
    ask("a", busy)
    with pytest.raises(NesyLoraError, match="503: busy"):
        shared_engine.stop()
        ask("b", busy, "generation.patience=0")


def test_a_vllm_that_does_not_start_ends_the_run_with_its_own_words(
    tiny_task: TinyTask, tmp_path: Path, started: None
) -> None:
    settings = [
        "generation.engine=vllm", f"generation.python={interpreter(tmp_path)}",
        "generation.arguments=['--fail', 'no KV cache']",
    ]  # fmt: skip
    run = new_run(tiny_task(budget={"rounds": 0}), settings, tmp_path / "runs", "a")
    with pytest.raises(NesyLoraError, match=r"ended while it was started.*no KV cache.*engine\.log"):
        nesylora.resume(run.path)


def test_a_killed_process_leaves_no_server_behind(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    child = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    script = (
        "import subprocess, sys, time\n"
        "from tools.engines.starting import BESIDE\n"
        f"command = [sys.executable, '-I', str(BESIDE), sys.executable, '-c', {child!r}]\n"
        "subprocess.Popen(command, stdin=subprocess.PIPE)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": os.getcwd()})
    _until(lambda: note.exists() and note.read_text() != "")
    process.send_signal(signal.SIGKILL)
    process.wait()
    _until(lambda: not _alive(int(note.read_text())))


def _until(true: Callable[[], bool]) -> None:
    for _ in range(600):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("not within half a minute")


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("settings", "way_out"),
    [
        (["generation.engine=vllm"], r"generation\.python.*generation\.url"),
        (["generation.engine=vllm", "generation.python=/no/such/python"], "no program"),
        (["generation.engine=vllm", "generation.arguments=['--api-key=x']"], "key_variable"),
        (["generation.url=http://127.0.0.1:1/v1"], "set `engine: vllm`"),
        (["generation.engine=vllm", "generation.url=http://127.0.0.1:1/v1", "generation.python=x"], "no effect"),
        (["generation.engine=vllm", "generation.url=http://127.0.0.1:1/v1", "lora.dora=true"], "lora.dora"),
        (["generation.engine=openai"], "needs `url`"),
        ([*WORDS, "data.too_long=leave_out"], "has no tokenizer"),
        ([*WORDS, "budget.usd=1"], r"needs `generation\.price"),
        (["generation.price={input: 1, output: 1}"], "`price` would have no effect"),
        (["generation.engine=openai", "generation.url=http://127.0.0.1:1/v1"], "policy: prompt-only"),
    ],
)
def test_what_an_engine_cannot_do_is_refused_when_the_task_is_read(
    settings: list[str], way_out: str, tiny_task: TinyTask, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=way_out):
        new_run(tiny_task(), settings, tmp_path / "runs")
