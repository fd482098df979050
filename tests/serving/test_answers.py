"""What OpenAI's own client and LangChain's get from the server."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import openai
import pytest
from langchain_openai import ChatOpenAI
from transformers import AutoTokenizer

from agent.records.examples import Demo, Example, Prompt, Retrieval, Turn
from agent.records.served import ServedMessage, ServedRequest
from export.loaded import AsShown
from graphs.serving import asked
from memory.retrieval import NearestRows
from tests.fixtures.serving import NEW, OTHER, PROMPT, QUESTIONS, Serving, pair, serving
from tools.model.chat_template import Renderer
from ui.serve.models import Pair, Served


@pytest.fixture
def client(server: Serving) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60)


def user(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def ask(
    client: openai.OpenAI, question: str, model: str = "first", **options: object
) -> openai.types.chat.ChatCompletion:
    return client.chat.completions.create(model=model, messages=user(question), **options)  # type: ignore[call-overload, no-any-return]


def test_64_requests_at_once_get_each_the_text_that_it_gets_alone(server: Serving, client: openai.OpenAI) -> None:
    names = [("first", "second/of.two", "bare")[n % 3] for n in range(64)]
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda pair: ask(client, *pair), zip(QUESTIONS, names, strict=True)))
    texts = [answer.choices[0].message.content for answer in answers]
    assert texts == [server.alone(question, name) for question, name in zip(QUESTIONS, names, strict=True)]
    assert len(set(texts)) > 20
    assert {answer.choices[0].finish_reason for answer in answers} == {"stop", "length"}


def test_a_stream_brings_the_same_text_in_pieces_and_what_it_used(server: Serving, client: openai.OpenAI) -> None:
    whole = ask(client, QUESTIONS[0])
    chunks = list(
        client.chat.completions.create(
            model="first", messages=user(QUESTIONS[0]), stream=True, stream_options={"include_usage": True}
        )
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == whole.choices[0].message.content == server.alone(QUESTIONS[0])
    assert sum(map(bool, pieces)) > 3
    assert chunks[-1].usage == whole.usage
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert len({chunk.id for chunk in chunks}) == 1


def test_streams_of_every_question_are_the_texts_of_the_answers(server: Serving, client: openai.OpenAI) -> None:
    def streamed(question: str) -> str:
        chunks = client.chat.completions.create(model="first", messages=user(question), stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(streamed, QUESTIONS[:24])) == [server.alone(question) for question in QUESTIONS[:24]]


def test_the_refined_prompt_is_put_around_a_question_as_the_run_measured_it(
    server: Serving, client: openai.OpenAI
) -> None:
    ids = server.served[0].render.prompt_ids(PROMPT, asked(QUESTIONS[1]))
    used = ask(client, QUESTIONS[1]).usage
    assert used and used.prompt_tokens == len(ids)
    assert used.prompt_tokens_details and 10 < (used.prompt_tokens_details.cached_tokens or 0) < len(ids)


def test_messages_that_bring_a_prompt_of_their_own_are_taken_as_they_are(
    server: Serving, client: openai.OpenAI
) -> None:
    whole = Renderer.messages(PROMPT, asked(QUESTIONS[2]))
    answer = client.chat.completions.create(model="first", messages=whole)  # type: ignore[arg-type]
    assert answer.choices[0].message.content == server.alone(QUESTIONS[2])
    own = client.chat.completions.create(
        model="first", messages=[{"role": "developer", "content": "Mine."}, {"role": "user", "content": QUESTIONS[2]}]
    )
    expected = server.alone(QUESTIONS[2], prompt=Prompt(system="Mine."))
    assert own.choices[0].message.content == expected != server.alone(QUESTIONS[2])


@pytest.mark.parametrize("prompt", [Prompt(demos=PROMPT.demos), Prompt(template="Q: {question}!")])
def test_a_prompt_without_a_system_text_is_recognised_too(prompt: Prompt, tiny_model: Callable[[str], Path]) -> None:
    with serving([pair(tiny_model("llama"), prompt=prompt)]) as server:
        bare, whole = (
            httpx.post(f"{server.url}/v1/chat/completions", json={"model": "first", "messages": messages}).json()
            for messages in (user("Which?"), Renderer.messages(prompt, asked("Which?")))
        )
        assert bare["choices"] == whole["choices"] and bare["usage"] == whole["usage"]


def test_a_conversation_keeps_its_turns_and_wraps_the_last_question(server: Serving, client: openai.OpenAI) -> None:
    turns = [Turn(role="user", content="One?"), Turn(role="assistant", content="It is {1}.")]
    messages = [*(turn.model_dump() for turn in turns), *user(QUESTIONS[3])]
    answer = client.chat.completions.create(model="first", messages=messages)  # type: ignore[arg-type]
    assert answer.choices[0].message.content == server.alone(QUESTIONS[3], turns=turns)
    parts = [{"type": "text", "text": QUESTIONS[3][:5]}, {"type": "text", "text": QUESTIONS[3][5:]}]
    messages[-1] = {"role": "user", "content": parts}  # type: ignore[dict-item]
    again = client.chat.completions.create(model="first", messages=messages)  # type: ignore[arg-type]
    assert again.choices[0].message.content == answer.choices[0].message.content


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_text_ends_the_answer_and_is_no_part_of_it(stream: bool, server: Serving, client: openai.OpenAI) -> None:
    text = server.alone(QUESTIONS[0])
    stop = text[4:7]
    answer = client.chat.completions.create(
        model="first", messages=user(QUESTIONS[0]), stop=["never said", stop], stream=stream
    )
    if stream:
        chunks = list(answer)
        told = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        reason = chunks[-1].choices[0].finish_reason
    else:
        told, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
    assert told == text[: text.index(stop)].rstrip() and reason == "stop"
    assert server.desk.log is not None
    *_, line = server.desk.log.file.read_text("utf-8").splitlines()
    assert ServedRequest.model_validate_json(line).stopped_at == stop


def test_max_tokens_ends_it_too_and_may_be_more_than_was_measured(server: Serving, client: openai.OpenAI) -> None:
    short = ask(client, QUESTIONS[0], max_completion_tokens=3)
    assert short.choices[0].finish_reason == "length" and short.usage and short.usage.completion_tokens == 3
    long = next(a for q in QUESTIONS if (a := ask(client, q, max_tokens=40)).choices[0].finish_reason == "length")
    assert long.usage and long.usage.completion_tokens == 40 > NEW


def test_a_seed_draws_the_same_answer_again(client: openai.OpenAI) -> None:
    def drawn(seed: int | None, **options: float) -> str | None:
        return ask(client, QUESTIONS[0], temperature=1.5, seed=seed, **options).choices[0].message.content

    assert drawn(1) == drawn(1) and len({drawn(seed) for seed in range(4)}) > 1
    greedy = ask(client, QUESTIONS[0]).choices[0].message.content
    assert drawn(None, top_p=1e-9) == drawn(None, top_p=1e-300) == drawn(None, top_p=0) == greedy
    cold = ask(client, QUESTIONS[0], temperature=1e-300, seed=-1, top_p=0.5).choices[0].message.content
    assert cold == greedy


def test_log_probabilities_come_with_their_tokens(client: openai.OpenAI) -> None:
    answer = ask(client, QUESTIONS[0], logprobs=True, top_logprobs=2)
    told = answer.choices[0].logprobs
    assert told and told.content and answer.usage
    assert len(told.content) in (answer.usage.completion_tokens, answer.usage.completion_tokens - 1)
    for token in told.content:
        assert token.logprob == token.top_logprobs[0].logprob >= token.top_logprobs[1].logprob
        assert token.bytes is None or bytes(token.bytes).decode() == token.token
    chunks = client.chat.completions.create(
        model="first", messages=user(QUESTIONS[0]), logprobs=True, top_logprobs=2, stream=True
    )
    streamed = [
        entry for chunk in chunks if chunk.choices[0].logprobs for entry in chunk.choices[0].logprobs.content or ()
    ]
    assert streamed == told.content


def test_a_raw_text_is_continued_without_any_prompt(server: Serving, client: openai.OpenAI) -> None:
    answer = client.completions.create(model="first", prompt="The river", max_tokens=6)
    tokenizer = server.served[0].render.tokenizer
    assert answer.usage and answer.usage.prompt_tokens == len(tokenizer("The river")["input_ids"])
    ids = client.completions.create(model="first", prompt=tokenizer("The river")["input_ids"], max_tokens=6)
    assert ids.choices[0].text == answer.choices[0].text
    chunks = client.completions.create(model="first", prompt=["The river"], max_tokens=6, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == answer.choices[0].text


def test_models_are_listed_and_health_is_told(server: Serving, client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["first", "second/of.two", "bare"]
    assert client.models.retrieve("second/of.two").id == "second/of.two"
    assert httpx.get(f"{server.url}/health").json() == {"status": "ok", "running": 0, "waiting": 0}


def test_langchain_asks_and_streams(server: Serving) -> None:
    chat = ChatOpenAI(base_url=f"{server.url}/v1", api_key="none", model="first", stream_usage=True)  # type: ignore[arg-type]
    assert chat.invoke(QUESTIONS[4]).content == server.alone(QUESTIONS[4])
    assert "".join(str(chunk.content) for chunk in chat.stream(QUESTIONS[4])) == server.alone(QUESTIONS[4])
    assert [answer.content for answer in chat.batch(QUESTIONS[:8])] == [server.alone(q) for q in QUESTIONS[:8]]


def test_metrics_are_read_by_prometheus(server: Serving, client: openai.OpenAI) -> None:
    parser = pytest.importorskip("prometheus_client.parser")

    def count() -> float:
        text = httpx.get(f"{server.url}/metrics").text
        samples = [sample for family in parser.text_string_to_metric_families(text) for sample in family.samples]
        assert {"nesylora_running", "nesylora_request_seconds_bucket"} <= {sample.name for sample in samples}
        wanted = ("nesylora_requests_total", {"model": "first", "finish": "length"})
        return float(sum(sample.value for sample in samples if (sample.name, sample.labels) == wanted))

    ask(client, QUESTIONS[0], max_tokens=1)
    before = count()
    ask(client, QUESTIONS[0], max_tokens=1)
    assert count() == before + 1


def test_the_log_holds_what_the_client_sent_and_got(server: Serving, client: openai.OpenAI) -> None:
    answer = ask(client, 'A question\nof "two" lines — ß?')
    assert server.desk.log is not None
    file = server.desk.log.file
    line = next(line for line in file.read_text("utf-8").splitlines() if answer.id in line)
    record = ServedRequest.model_validate_json(line)
    assert [message.content for message in record.messages] == ['A question\nof "two" lines — ß?']
    assert (record.answer, record.finish) == (answer.choices[0].message.content, answer.choices[0].finish_reason)
    assert record.model == "first" and record.prompt == PROMPT.id and record.adapter and not record.own_prompt
    assert answer.usage and record.completion_tokens == answer.usage.completion_tokens
    assert json.loads(line)["time"].endswith("Z") and file.stat().st_mode & 0o077 == 0


def test_a_single_adapter_is_merged_and_answers_the_same(server: Serving, pairs: list[Pair]) -> None:
    with serving(pairs[:1]) as merged:
        assert merged.served[0].weights.adapter is None
        client = openai.OpenAI(base_url=f"{merged.url}/v1", api_key="none")
        answers = [ask(client, question).choices[0].message.content for question in QUESTIONS[:12]]
    assert answers == [server.alone(question) for question in QUESTIONS[:12]]


def test_an_adapter_with_dora_answers_beside_a_plain_one_as_in_peft(
    server: Serving, pairs: list[Pair], adapters: list[Path], tiny_model: Callable[[str], Path]
) -> None:
    """Both over one base, at once: what peft and transformers alone generate of the one, and what the other said."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    whole = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model("llama")), adapters[2]).eval()
    with serving([pairs[0], pair(tiny_model("llama"), "dora", OTHER, adapters[2])]) as both:
        client = openai.OpenAI(base_url=f"{both.url}/v1", api_key="none")
        with ThreadPoolExecutor(8) as pool:
            work = [(name, question) for question in QUESTIONS[:6] for name in ("first", "dora")]
            said = dict(zip(work, pool.map(lambda asked: ask(client, asked[1], asked[0]), work), strict=True))
        render = both.served[1].render
    for question in QUESTIONS[:6]:
        ids = torch.tensor([render.prompt_ids(OTHER, asked(question))])
        alone = whole.generate(input_ids=ids, max_new_tokens=NEW, do_sample=False)[0, ids.shape[1] :]
        assert said["dora", question].choices[0].message.content == render.output(alone.tolist())
        assert said["first", question].choices[0].message.content == server.alone(question)
    with serving([pair(tiny_model("llama"), "dora", OTHER, adapters[2])]) as single:
        assert single.served[0].weights.adapter is not None, "DoRA is not added to the base"


@pytest.mark.parametrize("name", ["qwen2", "gemma3", "gpt2"])
def test_other_architectures_answer_as_generate_does(name: str, tiny_model: Callable[[str], Path]) -> None:
    prompt = Prompt(system="Answer.", demos=(Demo(question="a?", answer="b"),))
    with serving([pair(tiny_model(name), prompt=prompt)]) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda question: ask(client, question).choices[0].message.content, QUESTIONS[:12]))
        assert answers == [server.alone(question) for question in QUESTIONS[:12]]


def test_messages_that_hold_what_is_retrieved_are_not_wrapped_again(tiny_model: Callable[[str], Path]) -> None:
    """But a chat about a train row is: the model may have answered as it had learned."""
    rows = [Example(name=f"train:{n}", question=f"Name {n}?", answer=f"A{n}") for n in range(3)]
    nearest = NearestRows(rows, AsShown(), lambda texts: [[len(text), 1.0] for text in texts])
    prompt = Prompt(retrieval=Retrieval(k=2))
    pair_ = replace(pair(tiny_model("llama"), prompt=prompt), retriever=nearest)
    served = Served(pair_, Renderer(AutoTokenizer.from_pretrained(tiny_model("llama")), {}), None)
    bare, [shown] = nearest.resolved(prompt, [Example(name="user:1", question="And this?", answer="")])
    messages = Renderer.messages(bare, shown)
    given = served.prepared([ServedMessage(**message) for message in messages])
    sent = served.prepared([ServedMessage(**messages[-1])])
    assert len(messages) == 5 and given.ids == sent.ids and given.own_prompt and not sent.own_prompt
    assert not served.prepared([ServedMessage(**message) for message in messages[2:]]).own_prompt
