"""A model without weights here: messages go out, texts and token counts come back."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from agent.config.generation import Generation
from agent.config.llm import Price
from agent.errors import BadInput, BrokenOff, NesyLoraError, OutOfBudget
from agent.records.examples import Demo, Example, Prompt
from agent.records.rounds import Spend
from tests.fixtures.scripted_vllm import ScriptedVllm, refusal, scripted_vllm
from tests.llm.forward_proxy import HOST, forward_proxy, own_ca
from tests.llm.server import OVERLOADED, RESET, Reply, down
from tests.llm.server import serving as replying
from tools.engines.openai_model import OpenAiModel
from tools.engines.payments import Payments
from tools.llm.budget import LlmBudget, UnsavedCallLog
from tools.model.backbone import Backbone

PLACES = ("Orrowmere", "Tallisk", "Benn")
ROWS = [Example(name=f"row:{n}", question=f"Who is the mayor of {place}?", answer="") for n, place in enumerate(PLACES)]
PROMPT = Prompt(system="Answer.", demos=(Demo(question="1?", answer="one"),))
CHAT = "/v1/chat/completions"
Make = Callable[..., OpenAiModel]


@pytest.fixture(scope="module")
def serving(tiny_model: Callable[[str], Path]) -> Iterator[ScriptedVllm]:
    with scripted_vllm(tiny_model("llama"), "tiny") as server:
        yield server


@pytest.fixture
def server(serving: ScriptedVllm) -> ScriptedVllm:
    serving.asked.clear()
    serving.script.clear()
    serving.read.clear()
    return serving


@pytest.fixture
def model(server: ScriptedVllm) -> Make:
    def make(
        name: str = "tiny",
        charge: Callable[[Spend], None] = lambda _: None,
        note: Callable[[str], None] = lambda _: None,
        budget: LlmBudget | None = None,
        look_up: Callable[[str], object] = lambda _: None,
        **changes: Any,
    ) -> OpenAiModel:
        payments = Payments(name, Price(input=1, output=10), lambda: budget or LlmBudget(UnsavedCallLog()))
        settings = Generation(**({"engine": "openai", "url": server.url, "patience": 0} | changes))
        return OpenAiModel(name, settings, lambda *_: None, charge, look_up, note, payments)

    return make


def completion(text: str | None, **more: Any) -> tuple[int, dict[str, Any]]:
    return 200, {"choices": [{"message": {"content": text}}], **more}


def finished(reason: str, content: Any, **message: Any) -> tuple[int, dict[str, Any]]:
    return 200, {"choices": [{"message": {"content": content, **message}, "finish_reason": reason}]}


def test_answers_that_are_cut_held_back_or_thoughts_alone_are_counted_and_said(
    model: Make, server: ScriptedVllm
) -> None:
    said: list[str] = []
    there = model(batch_size=1, note=said.append)
    server.script[CHAT] = [
        finished("length", "So I"), finished("content_filter", None), finished("length", "", reasoning_content="Hm"),
    ]  # fmt: skip
    assert there.generate(PROMPT, ROWS, adapter=None, max_new_tokens=7)[0] == ["So I", "", ""]
    assert [sentence.split(" of ")[0] for sentence in said] == ["Warning: 1"] * 3
    assert "1 of 3 answers of 'tiny' were cut off (finish_reason: length)" in said[0]
    assert "content filter" in said[1] and "thoughts (reasoning_content) and no text" in said[2]
    server.script[CHAT] = [finished("stop", None), finished("length", "I"), finished("length", "I")]
    there.generate(PROMPT, ROWS, adapter=None, max_new_tokens=7)
    assert said[3:] == ["Warning: 1 of 6 answers of 'tiny' are empty."], "what was said is said again once it is common"
    server.script[CHAT] = [finished("length", "I")] * 7 + [finished("stop", "I")] * 2
    there.generate(PROMPT, ROWS * 3, adapter=None, max_new_tokens=7)
    assert len(said) == 5 and "10 of 15 answers" in said[4]


def test_a_content_of_parts_is_read_as_text(model: Make, server: ScriptedVllm) -> None:
    parts = [{"type": "text", "text": "Hesk"}, {"type": "image_url"}, {"type": "text", "text": "zan"}]
    server.script[CHAT] = [finished("stop", parts), (200, {"choices": [{"message": {}}]}), finished("stop", {"a": 1})]
    there = model(batch_size=1)
    assert there.generate(PROMPT, ROWS[:2], adapter=None, max_new_tokens=7)[0] == ["Heskzan", ""]
    with pytest.raises(NesyLoraError, match="no chat completion"):
        there.generate(PROMPT, ROWS[:1], adapter=None, max_new_tokens=7)


def test_it_is_sent_the_messages_that_our_own_template_renders(
    model: Make, server: ScriptedVllm, backbone: Callable[[], Backbone]
) -> None:
    charged: list[Spend] = []
    texts, spend = model(charge=charged.append).generate(PROMPT, ROWS, adapter=None, max_new_tokens=7)
    assert texts == backbone().generate(PROMPT, ROWS, adapter=None, max_new_tokens=7)[0]
    assert spend == sum(charged, Spend())
    assert spend.read_tokens == sum(server.read) and 0 < spend.generated_tokens <= 7 * len(ROWS)
    assert all(body["temperature"] == 0 and body["max_tokens"] == 7 for _, body in server.asked)


def test_what_a_server_counts_as_cached_is_not_read_and_what_it_does_not_count_is_estimated(
    model: Make, server: ScriptedVllm
) -> None:
    usage = {"prompt_tokens": 90, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 60}}
    server.script[CHAT] = [completion(" A ", usage=usage), completion(None), completion("12345678", usage=None)]
    texts, spend = model(batch_size=1).generate(PROMPT, ROWS, adapter=None, max_new_tokens=7)
    assert texts == ["A", "", "12345678"]
    assert spend.read_tokens > 30 and spend.generated_tokens == 4 + 1 + 2


def test_a_question_that_is_too_long_has_no_answer(model: Make) -> None:
    long = ROWS[0].model_copy(update={"question": "0 1 2 " * 600})
    texts, _ = model().generate(PROMPT, [ROWS[0], long], adapter=None, max_new_tokens=4)
    assert texts[0] is not None and texts[1] is None


def test_a_parameter_that_is_refused_is_sent_under_its_other_name_or_not_at_all(
    model: Make, server: ScriptedVllm
) -> None:
    server.script[CHAT] = [
        refusal(400, "Unsupported parameter: 'max_tokens'"), refusal(400, "'temperature' does not support 0"),
        completion("yes"),
    ]  # fmt: skip
    texts, _ = model().generate(PROMPT, ROWS[:1], adapter=None, max_new_tokens=7)
    assert texts == ["yes"]
    last = server.asked[-1][1]
    assert last["max_completion_tokens"] == 7 and not {"max_tokens", "temperature"} & last.keys()


def used(read: int, written: int) -> dict[str, int]:
    return {"prompt_tokens": read, "completion_tokens": written}


def test_answers_are_charged_to_the_budget_at_their_price(model: Make, server: ScriptedVllm) -> None:
    log = UnsavedCallLog()
    budget = LlmBudget(log)
    server.script[CHAT] = [completion("A", usage=used(90, 4)), refusal(400, "tools?")]
    there = model(batch_size=1, budget=budget)
    with pytest.raises(NesyLoraError, match="tools"):
        there.generate(PROMPT, ROWS[:2], adapter=None, max_new_tokens=7)
    [(role, paid)] = budget.usage.items()
    assert (role, paid.calls, paid.input_tokens, paid.output_tokens) == ("engine", 2, 90, 4)
    assert paid.usd == pytest.approx(130e-6)
    assert [call.settled for call in log] == [False, True, False, True] and log[0].usage.output_tokens == 7
    assert log[0].usage.input_tokens > sum(len(text) for text in ("Answer.", "1?", "one", ROWS[0].question))
    server.script[CHAT] = [completion("A")]
    there.generate(PROMPT, ROWS[:1], adapter=None, max_new_tokens=7)
    assert log[-1].usage == log[0].usage and log[-1].fault, "what the server does not count stays at its most"


def test_a_server_that_is_never_reached_is_not_paid(model: Make) -> None:
    budget = LlmBudget(UnsavedCallLog())
    with pytest.raises(NesyLoraError, match="does not answer"):
        model(url="http://127.0.0.1:9/v1", budget=budget).generate(PROMPT, ROWS, adapter=None, max_new_tokens=7)
    for _ in range(3_000):  # each in a thread of its own
        if budget.spend.usd < 1e-12:
            break
        time.sleep(0.01)
    spent = budget.spend
    assert spent.usd == pytest.approx(0, abs=1e-12) and spent.llm_tokens == 0  # sums of floats leave a rest


@pytest.mark.parametrize("then", [Reply("A", usage=(90, 4)), OVERLOADED], ids=["200", "503"])
def test_a_request_that_breaks_off_stays_charged_at_its_most_whatever_comes_of_the_next(
    then: Reply, model: Make
) -> None:
    log = UnsavedCallLog()
    with replying(down(lambda _: then, calls=1, fault=RESET)) as server:
        there = model(url=server.url, patience=1.5, budget=LlmBudget(log))
        if then.status == 200:
            assert there.generate(PROMPT, ROWS[:1], adapter=None, max_new_tokens=7)[0] == ["A"]
        else:
            with pytest.raises(NesyLoraError, match="does not answer"):
                there.generate(PROMPT, ROWS[:1], adapter=None, max_new_tokens=7)
    last = {call.number: call for call in log}
    first, *others = last.values()
    assert not first.settled and first.usage.usd > 0 and others
    assert all(call.usage.usd == pytest.approx(130e-6 if then.status == 200 else 0) for call in others)


def test_what_is_broken_off_is_paid_for_as_far_as_it_was_answered_and_no_further(
    model: Make, server: ScriptedVllm
) -> None:
    budget, charged = LlmBudget(UnsavedCallLog(), limit=300e-6), list[Spend]()
    server.script[CHAT] = [completion("A", usage=used(90, 4))] * 20

    def look_up(_: str) -> None:
        if budget.used_up:
            raise OutOfBudget(budget.used_up)

    there = model(batch_size=2, budget=budget, charge=charged.append, look_up=look_up)
    with pytest.raises(OutOfBudget, match=r"0\.0003 USD"):
        there.generate(PROMPT, ROWS * 6, adapter=None, max_new_tokens=7)
    for _ in range(3_000):  # until those under way have come
        if len(server.asked) * 94 == budget.spend.llm_tokens:
            break
        time.sleep(0.01)
    assert 3 <= len(server.asked) <= 6, "each costs 0.00013 USD, and two are under way"
    assert budget.spend.usd == pytest.approx(len(server.asked) * 130e-6)
    assert sum(charged, Spend()).read_tokens >= 3 * 90, "also that of the answer at which it was broken off"


@pytest.mark.parametrize(
    ("reply", "way_out"),
    [
        (refusal(404, "no such model"), "look at model and generation.url"),
        (refusal(401, "bad key"), "generation.key_variable"),
        (refusal(429, "You exceeded your quota: insufficient_quota"), "insufficient_quota"),
        (refusal(400, "tools?"), "does not take a request.*tools"),
        ((200, {"hello": 1}), "no chat completion"),
    ],
)
def test_refusals_name_the_setting(
    reply: tuple[int, dict[str, Any]], way_out: str, model: Make, server: ScriptedVllm
) -> None:
    server.script[CHAT] = [reply]
    with pytest.raises(NesyLoraError, match=way_out):
        model(patience=60).generate(PROMPT, ROWS[:1], adapter=None, max_new_tokens=7)


def test_a_server_that_is_away_is_waited_for_and_the_wait_is_broken_off(model: Make) -> None:
    told: list[str] = []

    def look_up(waits: str) -> None:
        told.append(waits)
        if waits:
            raise BrokenOff

    away = model(url="http://127.0.0.1:9/v1", patience=600, look_up=look_up)
    with pytest.raises(BrokenOff):
        away.generate(PROMPT, ROWS[:1], adapter=None, max_new_tokens=7)
    assert told[-1].startswith("Waiting for the server at http://127.0.0.1:9/v1: ")


def test_neither_likelihoods_nor_adapters_are_made_up(model: Make, server: ScriptedVllm) -> None:
    assert model().nll(PROMPT, ROWS, [("", "a")] * 3, adapter=None) == ([None] * 3, Spend())
    with pytest.raises(BadInput, match="without the adapter"):
        model().generate(PROMPT, ROWS, adapter="a", max_new_tokens=7)
    assert server.asked == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_elsewhere_is_asked_through_the_environments_proxy_and_ca(
    scheme: str, model: Make, server: ScriptedVllm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wanted, _ = model().generate(PROMPT, ROWS[:1], adapter=None, max_new_tokens=7)
    if scheme == "https" and not shutil.which("openssl"):
        pytest.skip("apt install openssl")
    ca = own_ca(tmp_path) if scheme == "https" else None
    with forward_proxy(server.url, ca) as proxy:
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.setenv(f"{scheme}_proxy", proxy.url)
        if ca:
            monkeypatch.setenv("SSL_CERT_FILE", str(ca[1]))
        there = model(url=f"{scheme}://{HOST}/v1")
        assert there.generate(PROMPT, ROWS[:1], adapter=None, max_new_tokens=7)[0] == wanted
    assert proxy.asked == (["CONNECT models.example:443", CHAT] if ca else [f"http://{HOST}{CHAT}"])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_server_of_this_machine_is_asked_without_the_proxy(
    host: str, model: Make, server: ScriptedVllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    with forward_proxy(server.url) as proxy:
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("all_proxy", proxy.url)
        texts, _ = model(url=server.url.replace("127.0.0.1", host)).generate(
            PROMPT, ROWS[:1], adapter=None, max_new_tokens=7
        )
    assert texts[0] is not None and proxy.asked == []


def test_a_proxy_that_cannot_be_one_is_named_by_its_variable_and_not_shown(
    model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "ftp://user:open-sesame@proxy")
    with pytest.raises(BadInput, match="HTTPS_PROXY") as refused:
        model(url=f"https://{HOST}/v1").generate(PROMPT, ROWS[:1], adapter=None, max_new_tokens=7)
    assert "sesame" not in str(refused.value)


SERVE = """
import sys, time, xllamacpp
settings = xllamacpp.CommonParams()
settings.model.path, settings.hostnames, settings.port = sys.argv[1], ["127.0.0.1"], 0
settings.n_ctx, settings.n_parallel, settings.kv_unified = 1024, 2, False
for threads in (settings.cpuparams, settings.cpuparams_batch):
    threads.n_threads, threads.poll = 1, 0
settings.use_jinja, settings.warmup = True, False
server = xllamacpp.Server(settings)
print("at", server.listening_address, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(find_spec("xllamacpp") is None, reason="pip install xllamacpp")
def test_a_real_llama_cpp_answers_as_our_own_backbone(
    model: Make, backbone: Callable[[], Backbone], tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    from export.formats.gguf_file import write_gguf

    folder, file = tiny_model("llama"), tmp_path / "tiny.gguf"
    write_gguf(AutoModelForCausalLM.from_pretrained(folder, dtype="float32"), folder, file, "f16", "tiny")
    command = [sys.executable, "-c", SERVE, str(file)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        address = next(line.split()[1] for line in process.stdout if line.startswith("at "))
        there = model(url=f"{address}/v1", batch_size=2)
        long = ROWS[0].model_copy(update={"question": "0 1 2 " * 600})
        texts, spend = there.generate(PROMPT, [*ROWS, long], adapter=None, max_new_tokens=6)
    finally:
        process.kill()
        process.wait()
    assert texts == [*backbone().generate(PROMPT, ROWS, adapter=None, max_new_tokens=6)[0], None]
    assert spend.read_tokens > 0 and spend.generated_tokens > 0
