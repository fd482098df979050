"""The model behind a vLLM server: the texts and charges of our own backbone, and errors that name the way out."""

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.config.generation import Generation
from agent.errors import BadInput, BrokenOff, NesyLoraError
from agent.records.examples import Demo, Example, Prompt
from agent.records.rounds import Spend
from tests.fixtures.scripted_vllm import ScriptedVllm, refusal, scripted_vllm
from tools.engines import server as server_module
from tools.engines import vllm, vllm_model
from tools.engines.server import Server
from tools.engines.vllm_model import VllmModel
from tools.model.backbone import Backbone

PLACES = ("Orrowmere", "Tallisk", "Benn", "the river 0 1 2", "bread")
ROWS = [Example(name=f"row:{n}", question=f"Who is the mayor of {place}?", answer="") for n, place in enumerate(PLACES)]
PROMPT = Prompt(system="Answer.", demos=(Demo(question="1?", answer="one"),))
Make = Callable[..., VllmModel]


@pytest.fixture(scope="module")
def serving(tiny_model: Callable[[str], Path]) -> Iterator[ScriptedVllm]:
    with scripted_vllm(tiny_model("llama"), "llama") as server:
        yield server


@pytest.fixture
def server(serving: ScriptedVllm) -> ScriptedVllm:
    """The one server, as new."""
    serving.asked.clear()
    serving.keys.clear()
    serving.script.clear()
    serving.length, serving.max_rank, serving.takes_adapters, serving.gives_ids = 1024, 16, True, True
    return serving


@pytest.fixture
def model(server: ScriptedVllm, tiny_model: Callable[[str], Path], backbone: Any, tmp_path: Path) -> Make:
    """The tiny Llama, answered by the server."""

    def make(own: Backbone | None = None, name: str = "", **changes: Any) -> VllmModel:
        charged = changes.pop("charge", lambda _: None)
        look_up = changes.pop("look_up", lambda _: None)
        locate = changes.pop("locate", tmp_path.joinpath)
        settings = Generation(**({"engine": "vllm", "url": server.url, "patience": 0} | changes))
        there = Server("vLLM", str(settings.url), settings)
        return VllmModel(
            name or str(tiny_model("llama")), settings, {}, lambda: there, lambda: None,
            lambda: own or backbone(), locate, lambda *_: None, charged, look_up,
        )  # fmt: skip

    return make


def paths(server: ScriptedVllm) -> list[str]:
    return [path for path, _ in server.asked]


def test_texts_and_charges_are_those_of_our_own_backbone(
    model: Make, backbone: Callable[[], Backbone], random_adapter: Callable[..., Path]
) -> None:
    own, charged = backbone(), list[Spend]()
    for number, adapter in enumerate(("first", "second")):
        random_adapter(own, adapter, number)
    there = model(own, charge=charged.append)
    said = {}
    for adapter in (None, "first", "second", "first", None):
        texts, spend = own.generate(PROMPT, ROWS, adapter=adapter, max_new_tokens=9)
        found, charge = there.generate(PROMPT, ROWS, adapter=adapter, max_new_tokens=9)
        assert found == texts
        assert (charge.generated_tokens, charge.read_tokens) == (spend.generated_tokens, spend.read_tokens)
        assert sum(charged, Spend()) == charge
        charged.clear()
        said[adapter] = tuple(texts)
    assert len(set(said.values())) == 3, "adapters that change nothing show nothing"


def test_likelihoods_are_our_own_backbones(model: Make, backbone: Callable[[], Backbone], server: ScriptedVllm) -> None:
    own = backbone()
    scored = [("", "Heskzan")] * len(ROWS)
    assert model(own).nll(PROMPT, ROWS, scored, adapter=None) == own.nll(PROMPT, ROWS, scored, adapter=None)
    assert server.asked == []


def test_a_run_that_ends_unloads_its_own_adapters_and_those_of_no_other_run(
    model: Make, backbone: Callable[[], Backbone], random_adapter: Callable[..., Path], server: ScriptedVllm,
    tmp_path: Path,
) -> None:  # fmt: skip
    own = backbone()
    server.loaded.clear()
    shutil.copytree(random_adapter(own, "one", 50), tmp_path / "elsewhere/one")
    ending, other = model(own), model(own, locate=(tmp_path / "elsewhere").joinpath)
    wanted = ending.generate(PROMPT, ROWS, adapter="one", max_new_tokens=5)
    assert other.generate(PROMPT, ROWS, adapter="one", max_new_tokens=5) == wanted
    assert len(server.loaded) == 2, "the same weights in two runs"
    ending.close()
    assert list(server.loaded.values()) == [tmp_path / "elsewhere/one"]
    assert ending.generate(PROMPT, ROWS, adapter="one", max_new_tokens=5) == wanted  # asked after its end
    ending.close()
    assert list(server.loaded.values()) == [tmp_path / "elsewhere/one"]


def test_a_run_that_ends_waits_for_no_server_that_is_away(
    model: Make, backbone: Callable[[], Backbone], random_adapter: Callable[..., Path], server: ScriptedVllm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    own, answer, never, answered = backbone(), server.reply, threading.Event(), threading.Event()
    random_adapter(own, "one", 60)
    there = model(own, patience=600)
    there.generate(PROMPT, ROWS[:1], adapter="one", max_new_tokens=2)
    monkeypatch.setattr(server_module, "BRIEF_SECONDS", 0.3)
    monkeypatch.setattr(server, "reply", lambda path, body: (never.wait(20), answered.set(), answer(path, body))[2])
    there.close()
    assert not answered.is_set()
    never.set()


def test_an_adapter_that_is_being_loaded_when_the_run_ends_is_unloaded_after_all(
    model: Make, backbone: Callable[[], Backbone], random_adapter: Callable[..., Path], server: ScriptedVllm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    own, answer, loading, go_on = backbone(), server.reply, threading.Event(), threading.Event()
    random_adapter(own, "one", 70)
    server.loaded.clear()

    def slow(path: str, body: dict[str, Any]) -> Any:
        if path == "/v1/load_lora_adapter":
            loading.set()
            go_on.wait(60)
        return answer(path, body)

    def look_up(_: str) -> None:
        if loading.is_set():
            raise BrokenOff

    monkeypatch.setattr(server, "reply", slow)
    monkeypatch.setattr(vllm, "BRIEF_SECONDS", 0.3)
    there = model(own, look_up=look_up)
    with pytest.raises(BrokenOff):
        there.generate(PROMPT, ROWS, adapter="one", max_new_tokens=3)
    there.close()
    go_on.set()
    end = time.monotonic() + 60
    while "/v1/unload_lora_adapter" not in paths(server) and time.monotonic() < end:
        time.sleep(0.05)
    assert server.loaded == {}


def test_a_row_beyond_the_window_is_none_and_not_asked(model: Make, server: ScriptedVllm) -> None:
    long = ROWS[0].model_copy(update={"question": "0 1 2 " * 600})
    texts, spend = model().generate(PROMPT, [ROWS[0], long], adapter=None, max_new_tokens=4)
    assert texts[0] is not None and texts[1] is None
    assert paths(server).count("/v1/completions") == 1 and spend.read_tokens < 200


def test_an_adapter_is_loaded_once_by_what_it_holds_and_the_oldest_is_unloaded(
    model: Make, backbone: Callable[[], Backbone], random_adapter: Callable[..., Path], server: ScriptedVllm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(vllm, "MOST_ADAPTERS", 2)
    own = backbone()
    for number, adapter in enumerate(("one", "two", "three")):
        random_adapter(own, adapter, number + 10)
    there, before = model(own), set(server.loaded)
    for adapter in ("one", "two", "one", "three", "two"):
        there.generate(PROMPT, ROWS[:2], adapter=adapter, max_new_tokens=2)
    assert paths(server).count("/v1/load_lora_adapter") == 4  # the second again, which made room for the third
    assert len(set(server.loaded) - before) == 2
    random_adapter(own, "one", 99)
    said, _ = there.generate(PROMPT, ROWS, adapter="one", max_new_tokens=9)
    assert said == own.generate(PROMPT, ROWS, adapter="one", max_new_tokens=9)[0], "other weights under the same id"


def test_an_adapter_that_others_have_loaded_or_unloaded_is_answered_with(
    model: Make, backbone: Callable[[], Backbone], random_adapter: Callable[..., Path], server: ScriptedVllm
) -> None:
    own = backbone()
    random_adapter(own, "one", 20)
    wanted, _ = own.generate(PROMPT, ROWS, adapter="one", max_new_tokens=5)
    first, second = model(own), model(own)
    assert first.generate(PROMPT, ROWS, adapter="one", max_new_tokens=5)[0] == wanted
    assert second.generate(PROMPT, ROWS, adapter="one", max_new_tokens=5)[0] == wanted  # told that it is loaded
    server.loaded.clear()
    assert first.generate(PROMPT, ROWS, adapter="one", max_new_tokens=5)[0] == wanted


@pytest.mark.parametrize(
    ("spoil", "way_out"),
    [
        ({"takes_adapters": False}, "--enable-lora.*VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"),
        ({"max_rank": 1}, "--max-lora-rank"),
        ({"script": {"/v1/load_lora_adapter": [refusal(500, "LoRA is not enabled.")]}}, "--enable-lora"),
        ({"script": {"/v1/load_lora_adapter": [refusal(404, "No adapter found for /x")]}}, "see the run's folder"),
        ({"script": {"/v1/load_lora_adapter": [refusal(500, "no DoRA")]}}, "no DoRA.*engine: own"),
        ({"script": {"/v1/completions": [refusal(400, "maximum context length is 9")]}}, "--max-model-len"),
        ({"script": {"/v1/completions": [refusal(401, "Unauthorized")]}}, "generation.key_variable"),
        ({"script": {"/v1/completions": [(200, {"choices": []})]}}, "no completion"),
        ({"length": 20}, "20 tokens.*--max-model-len"),
        ({"gives_ids": False}, "0.10.2"),
    ],
)
def test_what_the_server_refuses_is_an_error_that_names_the_way_out(
    spoil: dict[str, Any], way_out: str, model: Make, backbone: Callable[[], Backbone],
    random_adapter: Callable[..., Path], server: ScriptedVllm,
) -> None:  # fmt: skip
    own = backbone()
    random_adapter(own, "one", 30)
    server.loaded.clear()
    for name, value in spoil.items():
        setattr(server, name, value)
    with pytest.raises(NesyLoraError, match=way_out):
        model(own).generate(PROMPT, ROWS[:1], adapter="one", max_new_tokens=3)


def test_a_server_of_another_model_is_refused_with_both_names(
    model: Make, server: ScriptedVllm, tiny_model: Callable[[str], Path]
) -> None:
    with pytest.raises(BadInput, match=r"serves 'llama', and the task's model is .*--served-model-name"):
        model(name=str(tiny_model("qwen2"))).generate(PROMPT, ROWS, adapter=None, max_new_tokens=3)
    server.script["/v1/models"] = [(200, {"models": []})]
    with pytest.raises(BadInput, match="no vLLM server"):
        model().generate(PROMPT, ROWS, adapter=None, max_new_tokens=3)


def test_a_server_that_is_away_is_waited_for_and_the_user_is_told(model: Make, server: ScriptedVllm) -> None:
    wanted, _ = model().generate(PROMPT, ROWS, adapter=None, max_new_tokens=3)
    server.script["/v1/completions"] = [refusal(503, "starting"), refusal(429, "busy")]
    told: list[str] = []
    patient = model(patience=30, look_up=lambda waits: told.append(waits))
    assert patient.generate(PROMPT, ROWS, adapter=None, max_new_tokens=3)[0] == wanted
    assert any("503" in waits or "429" in waits for waits in told)
    assert told[-1] == ""
    server.script["/v1/completions"] = [refusal(503, "starting")] * 9
    with pytest.raises(NesyLoraError, match=r"starting.*generation.patience.*nesylora resume"):
        model().generate(PROMPT, ROWS, adapter=None, max_new_tokens=3)
    with pytest.raises(NesyLoraError, match="does not answer"):
        model(url="http://127.0.0.1:9/v1").generate(PROMPT, ROWS, adapter=None, max_new_tokens=3)


def test_a_run_that_is_broken_off_waits_for_no_answer(
    model: Make, server: ScriptedVllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    never, answered, answer = threading.Event(), threading.Event(), server.reply

    def slow(path: str, body: dict[str, Any]) -> Any:
        if path == "/v1/completions":
            never.wait(20)
            answered.set()
        return answer(path, body)

    monkeypatch.setattr(server, "reply", slow)
    began = time.monotonic()

    def look_up(_: str) -> None:
        if time.monotonic() > began + 0.3:
            raise BrokenOff

    with pytest.raises(BrokenOff):
        model(look_up=look_up, batch_size=2).generate(PROMPT, ROWS, adapter=None, max_new_tokens=3)
    assert not never.is_set() and not answered.is_set()
    never.set()
    time.sleep(0.1)
    assert paths(server).count("/v1/completions") <= 2, "the rest was not sent"


@pytest.mark.parametrize("adapter", [None, "one"])
def test_the_first_contact_says_that_it_waits_and_is_broken_off(
    adapter: str | None, model: Make, backbone: Callable[[], Backbone], random_adapter: Callable[..., Path],
    server: ScriptedVllm,
) -> None:  # fmt: skip
    own, told = backbone(), list[str]()
    random_adapter(own, "one", 40)
    path = "/v1/load_lora_adapter" if adapter else "/v1/models"

    def look_up(waits: str) -> None:
        told.append(waits)
        if waits:
            raise BrokenOff

    server.script[path] = [refusal(503, "starting")] * 99
    began = time.monotonic()
    with pytest.raises(BrokenOff):
        model(own, look_up=look_up, patience=600).generate(PROMPT, ROWS, adapter=adapter, max_new_tokens=3)
    assert re.search(r"Waiting for vLLM at http.*503: starting", told[-1]) and time.monotonic() < began + 60
    tried = len(server.asked)
    time.sleep(1.5)  # longer than a first wait
    assert len(server.asked) == tried
    server.script[path] = [refusal(503, "starting")]
    there = model(own, look_up=told.append, patience=600)
    assert None not in there.generate(PROMPT, ROWS, adapter=adapter, max_new_tokens=3)[0]
    assert "503" in " ".join(told) and told[-1] == ""


def test_a_first_contact_that_hangs_is_told_of_and_broken_off(
    model: Make, server: ScriptedVllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    never, answer = threading.Event(), server.reply
    monkeypatch.setattr(server, "reply", lambda path, body: (never.wait(60), answer(path, body))[1])
    monkeypatch.setattr(vllm_model, "SLOW", 0.3)

    def look_up(waits: str) -> None:
        if waits:
            assert re.fullmatch(r"Waiting for vLLM at http\S+\.", waits)
            raise BrokenOff

    with pytest.raises(BrokenOff):
        model(look_up=look_up).generate(PROMPT, ROWS, adapter=None, max_new_tokens=3)
    never.set()


def test_a_run_that_is_broken_off_leaves_no_request_that_waits(model: Make, server: ScriptedVllm) -> None:
    server.script["/v1/completions"] = [refusal(503, "starting")] * 99

    def look_up(waits: str) -> None:
        if waits:
            raise BrokenOff

    with pytest.raises(BrokenOff):
        model(look_up=look_up, patience=600).generate(PROMPT, ROWS, adapter=None, max_new_tokens=3)
    tried = len(server.asked)
    time.sleep(1.5)  # longer than a first wait
    assert len(server.asked) == tried


def test_so_many_rows_are_out_at_a_time_and_the_key_goes_with_them(
    model: Make, server: ScriptedVllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, lock = server.reply, threading.Lock()
    now = most = 0

    def counted(path: str, body: dict[str, Any]) -> Any:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.05)
        try:
            return answer(path, body)
        finally:
            with lock:
                now -= 1

    monkeypatch.setattr(server, "reply", counted)
    monkeypatch.setenv("ENGINE_KEY", "open-sesame")
    model(batch_size=3, key_variable="ENGINE_KEY").generate(PROMPT, ROWS, adapter=None, max_new_tokens=3)
    assert most == 3
    assert set(server.keys) == {"Bearer open-sesame"}
    server.script["/v1/completions"] = [refusal(401, "Incorrect key: open-sesame")]
    with pytest.raises(BadInput, match=r"the key in \$ENGINE_KEY .*Incorrect key: \[key\]"):
        model(key_variable="ENGINE_KEY").generate(PROMPT, ROWS[:1], adapter=None, max_new_tokens=3)
    with pytest.raises(BadInput, match="NO_SUCH_KEY holds no key"):
        model(key_variable="NO_SUCH_KEY").generate(PROMPT, ROWS, adapter=None, max_new_tokens=3)


def test_an_answer_may_take_as_long_as_the_task_says(
    model: Make, server: ScriptedVllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, never = server.reply, threading.Event()

    def slow(path: str, body: dict[str, Any]) -> Any:
        if path == "/v1/completions":
            never.wait(20)
        return answer(path, body)

    monkeypatch.setattr(server, "reply", slow)
    with pytest.raises(NesyLoraError, match=r"no answer within 0\.4 s, which is generation\.answer_seconds"):
        model(answer_seconds=0.4).generate(PROMPT, ROWS[:1], adapter=None, max_new_tokens=3)
    never.set()


def test_a_server_that_has_ended_is_not_waited_for() -> None:
    settings = Generation(engine="vllm", patience=600)
    ended = Server("vLLM", "http://127.0.0.1:9/v1", settings, ended=lambda: "It has ended. Its log is engine.log")
    with pytest.raises(NesyLoraError, match=r"It has ended\. Its log is engine\.log\..*nesylora resume"):
        ended.get("/models")
