"""Rows that come and go get the tokens that `generate` gives each alone."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from agent.errors import NesyLoraError
from agent.records.examples import Demo, Example, Prompt
from tools.continuous.batch import ContinuousBatch
from tools.continuous.engine import Engine, NoSuchToken, QueueFull, Stopped, TooLong, Weights
from tools.continuous.row import Choice, Ended, Row, Sampling
from tools.continuous.slots import Slots
from tools.model.backbone import Backbone

PROMPT = Prompt(system="Answer the question.", demos=(Demo(question="Who?", answer="ANSWER: Heskzan"),))
PLACES = ("Orrowmere", "Tallisk", "Benn", "the river", "bread 0 1 2 3", "a bridge {} [] - # $")
EXAMPLES = [
    Example(name=f"user:{n}", question=f"{'Who is the mayor of ' * (n % 4)}{PLACES[n % 6]}? {n}", answer="")
    for n in range(24)
]
NEW = 12


class Kept:
    """Reads an answer as a user would, token by token."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.choices: list[Choice] = []
        self.reason: Ended | None = None
        self.error: NesyLoraError | None = None
        self.done, self.begun = threading.Event(), threading.Event()
        self._stop_at = stop_at

    @property
    def tokens(self) -> list[int]:
        return [choice.token for choice in self.choices]

    def token(self, choice: Choice) -> bool:
        self.choices.append(choice)
        self.begun.set()
        return len(self.choices) == self._stop_at

    def ended(self, reason: Ended) -> None:
        self.reason = reason
        self.done.set()

    def failed(self, error: NesyLoraError) -> None:
        self.error = error
        self.done.set()


@contextmanager
def engine(model: Backbone, adapters: list[str | None], **limits: int) -> Iterator[Engine]:
    ids = model.render.prompts_ids(PROMPT, EXAMPLES[:2])
    shared = next(place for place, (a, b) in enumerate(zip(*ids, strict=False)) if a != b)
    weights = {adapter or "base": Weights(adapter, ids[0][:shared]) for adapter in adapters}
    made = Engine(model, weights, **({"most_rows": 8, "most_waiting": 100} | limits))
    made.start()
    try:
        yield made
    finally:
        made.close()


def ask(model: Backbone, example: Example, prompt: Prompt = PROMPT, new: int = NEW, **sampling: float) -> Row:
    return Row(model.render.prompt_ids(prompt, example), new, Kept(), Sampling(**sampling))  # type: ignore[arg-type]


def read(row: Row) -> Kept:
    assert isinstance(row.reader, Kept) and row.reader.done.wait(60)
    return row.reader


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma2", "gemma3", "gpt2", "lfm2"])
def test_rows_together_get_what_each_gets_alone(name: str, backbone: Callable[..., Backbone]) -> None:
    model = backbone(name)
    own = Prompt(system="Another system text, of a client's own.")
    with engine(model, [None]) as served:
        rows = [ask(model, example, own if place % 5 == 4 else PROMPT) for place, example in enumerate(EXAMPLES)]
        for row in rows:
            served.submit("base", row)
        texts = [model.render.output(read(row).tokens) for row in rows]
    alone = [
        model.generate(own if place % 5 == 4 else PROMPT, [example], adapter=None, max_new_tokens=NEW)[0][0]
        for place, example in enumerate(EXAMPLES)
    ]
    assert texts == alone and len(set(texts)) > 5


def test_two_adapters_over_one_base_answer_each_with_its_own(
    backbone: Callable[..., Backbone], random_adapter: Callable[..., Path]
) -> None:
    model = backbone()
    for seed, adapter in enumerate(("first", "second")):
        random_adapter(model, adapter, seed)
    names: list[str | None] = ["first", "second", None]
    with engine(model, names) as served:
        rows = [(name, example, ask(model, example)) for example in EXAMPLES[:8] for name in names]
        for name, _, row in rows:
            served.submit(name or "base", row)
        texts = [model.render.output(read(row).tokens) for _, _, row in rows]
    alone = [model.generate(PROMPT, [example], adapter=name, max_new_tokens=NEW)[0][0] for name, example, _ in rows]
    assert texts == alone and len(set(texts)) > 8


def assert_answers_are_those_of_one_at_a_time(model: Backbone) -> None:
    with engine(model, [None]) as served:
        rows = [ask(model, example) for example in EXAMPLES[:6]]
        for row in rows:
            served.submit("base", row)
        texts = [model.render.output(read(row).tokens) for row in rows]
    assert texts == [
        model.generate(PROMPT, [example], adapter=None, max_new_tokens=NEW)[0][0] for example in EXAMPLES[:6]
    ]


def test_a_prompt_longer_than_a_step_takes_is_run_in_parts_while_others_answer(
    backbone: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.continuous.batch.PROMPT_TOKENS", {"cpu": 10})
    model = backbone("gemma3")
    assert_answers_are_those_of_one_at_a_time(model)


def test_constraints_of_the_models_own_hold_for_rows_that_come_and_go(backbone: Callable[..., Backbone]) -> None:
    model = backbone()
    model.base.generation_config.repetition_penalty = 1.5
    assert_answers_are_those_of_one_at_a_time(model)


def test_a_seed_draws_the_same_tokens_beside_any_neighbours(backbone: Callable[..., Backbone]) -> None:
    model = backbone()
    with engine(model, [None]) as served:
        first = ask(model, EXAMPLES[0], temperature=1.0, seed=7)
        served.submit("base", first)
        alone = read(first).tokens
        rows = [ask(model, EXAMPLES[0], temperature=1.0, seed=seed) for seed in (7, 8, 7, 9)]
        for row in rows:
            served.submit("base", row)
        drawn = [read(row).tokens for row in rows]
        narrow = ask(model, EXAMPLES[0], temperature=1.0, top_p=1e-9)
        greedy = ask(model, EXAMPLES[0])
        for row in (narrow, greedy):
            served.submit("base", row)
        assert read(narrow).tokens == read(greedy).tokens
    assert drawn[0] == drawn[2] == alone and len({tuple(tokens) for tokens in drawn}) == 3


def test_log_probabilities_are_those_of_the_plain_model(backbone: Callable[..., Backbone]) -> None:
    model = backbone()
    row = ask(model, EXAMPLES[0], logprobs=3)
    with engine(model, [None]) as served:
        served.submit("base", row)
        choices = read(row).choices
    with torch.inference_mode():
        logits = model.base(torch.tensor([[*row.prompt, *row.tokens]])).logits[0].log_softmax(dim=-1)
    for place, choice in enumerate(choices, len(row.prompt) - 1):
        assert choice.logprob == pytest.approx(float(logits[place, choice.token]), abs=1e-4)
        assert [token for token, _ in choice.likeliest] == logits[place].topk(3).indices.tolist()


def test_a_row_that_is_gone_leaves_and_the_next_takes_its_place(backbone: Callable[..., Backbone]) -> None:
    model = backbone()
    model.base.generation_config.eos_token_id = None
    model.render.tokenizer.eos_token = "<s>"
    with engine(model, [None], most_rows=1) as served:
        endless, next_ = ask(model, EXAMPLES[0], new=700), ask(model, EXAMPLES[1])
        served.submit("base", endless)
        served.submit("base", next_)
        assert isinstance(endless.reader, Kept) and endless.reader.begun.wait(60)
        endless.gone.set()
        read(next_)
        assert not endless.reader.done.is_set() and len(endless.tokens) < 700
        assert served.waiting == 0


def test_rows_beside_one_that_is_gone_keep_their_own_slots(backbone: Callable[..., Backbone]) -> None:
    model = backbone()
    model.base.generation_config.suppress_tokens = [1]  # no answer ends by itself
    with engine(model, [None]) as served:
        first = ask(model, EXAMPLES[0], new=800)
        rows = [ask(model, example, new=60) for example in EXAMPLES[1:5]]
        for row in (first, *rows):
            served.submit("base", row)
        assert isinstance(first.reader, Kept) and isinstance(rows[-1].reader, Kept) and rows[-1].reader.begun.wait(60)
        first.gone.set()
        texts = [model.render.output(read(row).tokens) for row in rows]
    assert texts == [
        model.generate(PROMPT, [example], adapter=None, max_new_tokens=60)[0][0] for example in EXAMPLES[1:5]
    ]


def test_what_cannot_be_answered_is_refused_with_the_numbers(backbone: Callable[..., Backbone]) -> None:
    model = backbone()
    with engine(model, [None], most_rows=1, most_waiting=2) as served:
        with pytest.raises(TooLong, match="tokens and the answer may have 2000; together they may be 1024"):
            served.submit("base", ask(model, EXAMPLES[0], new=2000))
        rows = []
        with pytest.raises(QueueFull, match="2 requests are waiting"):
            for _ in range(50):
                rows.append(ask(model, EXAMPLES[0], new=500))
                served.submit("base", rows[-1])
        for row in rows:
            row.gone.set()
    with pytest.raises(Stopped):
        served.submit("base", ask(model, EXAMPLES[0]))


def test_rows_that_are_not_done_are_told_when_the_engine_closes(backbone: Callable[..., Backbone]) -> None:
    model = backbone()
    with engine(model, [None], most_rows=1) as served:
        rows = [ask(model, EXAMPLES[0], new=900) for _ in range(3)]
        for row in rows:
            served.submit("base", row)
    assert {type(read(row).error) for row in rows[1:]} == {Stopped}


def test_ids_without_an_embedding_are_refused_and_a_row_that_cannot_begin_fails_alone(
    backbone: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = backbone()
    size = model.base.config.vocab_size
    with engine(model, [None]) as served:
        for ids, fault in (([], "no tokens"), ([5, size], f"{size}; .* 0 to {size - 1}"), ([-1], "id -1")):
            with pytest.raises(NoSuchToken, match=fault):
                served.submit("base", Row(ids, NEW, Kept()))
        bad, good, add = ask(model, EXAMPLES[0]), ask(model, EXAMPLES[1]), served._chooser.add

        def failing(row: Row) -> None:
            if row is bad:
                raise IndexError("no such place")
            add(row)

        monkeypatch.setattr(served._chooser, "add", failing)
        for row in (bad, good):
            served.submit("base", row)
        assert "cannot be begun: no such place" in str(read(bad).error)
        assert read(good).reason and served.alive and not served.running


@pytest.mark.parametrize("call", [1, 2, 3, 7])
def test_rows_in_no_slot_when_memory_runs_out_fail_and_the_others_go_on(
    call: int, backbone: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever tensor it is that memory does not hold: of the first slots, or of more."""
    model = backbone()
    model.base.generation_config.suppress_tokens = [1]  # no answer ends by itself
    calls, empty = iter(range(1, 1000)), Slots._empty

    def failing(self: Slots, like: torch.Tensor, slots: int) -> torch.Tensor:
        if next(calls) == call:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return empty(self, like, slots)

    monkeypatch.setattr(Slots, "_empty", failing)
    with engine(model, [None]) as served:
        rows = [ask(model, EXAMPLES[0]) for _ in range(6)]
        with served._changed:  # all at once
            served._waiting.extend(("base", row) for row in rows)
            served._changed.notify()
        answers = [read(row) for row in rows]
        failed = [answer for answer in answers if answer.error]
        assert failed and all("Memory does not hold" in str(answer.error) for answer in failed)
        later = ask(model, EXAMPLES[0])
        served.submit("base", later)
        alone = read(later).tokens
        assert len(alone) == NEW and served.alive and not served.running
    assert all(answer.tokens == alone for answer in answers if not answer.error)


def test_slots_stay_within_the_budget_of_keys_and_values(
    backbone: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted where they are made: of two sizes, with what is kept free."""
    model = backbone()
    model.base.generation_config.suppress_tokens = [1]  # no answer ends by itself
    made: list[int] = []
    step = ContinuousBatch.step

    def counted(self: ContinuousBatch, base: PreTrainedModel) -> None:
        step(self, base)
        made.append(sum(slots.capacity * slots.T for slots in self._slots.values()))

    monkeypatch.setattr(ContinuousBatch, "step", counted)
    with engine(model, [None]) as served:
        served._budget = 512
        with pytest.raises(TooLong, match="memory has room for 512"):
            served.submit("base", ask(model, EXAMPLES[0], new=513))
        rows = [ask(model, EXAMPLES[0], new=200), *(ask(model, EXAMPLES[0], new=NEW) for _ in range(7))]
        for row in rows:
            served.submit("base", row)
        assert {len(read(row).tokens) for row in rows} == {NEW, 200}
    assert 256 < max(made) <= 512
    assert made[-2] == 256, "one long row has one slot"
