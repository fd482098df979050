"""Several prompts answered in one batch: the texts, the charges and the progress of calls one after another."""

from collections.abc import Callable, Iterator
from pathlib import Path
from weakref import ref

import pytest
import torch

from agent.errors import NesyLoraError
from agent.protocols import Asked
from agent.records.examples import Demo, Example, Prompt
from agent.records.rounds import Spend
from tests.fixtures.plain import Plain
from tools.model import backbone as module
from tools.model.backbone import Backbone
from tools.packed.prefix_cache import PrefixCache
from tools.static.decoding import decoder
from tools.static.decoding.static_path import StaticPath

DEMOS = tuple(Demo(question=f"Who is mayor {n} of Tallisk?", answer="ANSWER: Heskzan") for n in range(3))
ROWS = [
    Example(name=f"v:{n}", question="Who is the mayor " * (n % 4) + f"of the river {n}?", answer="x") for n in range(5)
]
OWN = [row.model_copy(update={"demos": DEMOS[n % 3 :]}) for n, row in enumerate(ROWS)]  # as where rows are retrieved
ASKED = [
    Asked(Prompt(system="Answer the question.", demos=DEMOS), ROWS),
    Asked(Prompt(system="Answer the question."), ROWS[:3]),
    Asked(Prompt(system="The bread and the bridge."), ROWS[1:2]),
    Asked(Prompt(system="Answer the question.", demos=DEMOS), []),
    Asked(Prompt(system="Answer the question. Start your answer with it.", demos=DEMOS[:1]), OWN),
]
PACKED = ["llama", "llama_biased", "llama_tied", "mixtral", "qwen2", "qwen3", "gemma2", "gemma3", "gemma3_wide", "gpt2"]

Load = Callable[..., Backbone]
Texts = list[list[str | None]]


@pytest.fixture(params=["eagerly", "in static steps"])
def steps(request: pytest.FixtureRequest) -> Iterator[None]:
    """How answers are decoded."""
    if request.param == "in static steps":
        request.getfixturevalue("everywhere")
    yield


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Static steps on every device."""
    monkeypatch.setattr("tools.static.decoding.static_path.DEVICES", ("cuda", "cpu", "mps"))


def together(backbone: Backbone, adapter: str | None = None, asked: list[Asked] = ASKED, new: int = 10) -> Texts:
    return [texts for texts, _ in backbone.generate_each(asked, adapter=adapter, max_new_tokens=new)]


@pytest.mark.parametrize("name", [*PACKED, "lfm2", "phi3_turned"])
def test_every_row_gets_what_it_gets_alone(
    name: str, backbone: Load, tiny_model: Callable[[str], Path], random_adapter: Callable[..., Path], everywhere: None
) -> None:
    ours = backbone(name, batch_size=8)
    folder = random_adapter(ours, "tuned")
    found = {}
    for adapter in ("tuned", None):
        plain = Plain(tiny_model(name), folder if adapter else None, ours.device)
        wanted = [
            [ours.render.output(plain.answer(ids, ours.ends, 10)) for ids in ours.render.prompts_ids(*asked)]
            for asked in ASKED
        ]
        found[adapter] = together(ours, adapter)  # in static steps, where the model can
        assert found[adapter] == wanted
        static, ours._static = ours._static, StaticPath(ours.base, possible=False)
        assert together(ours, adapter) == wanted
        ours._static = static
    assert found["tuned"] != found[None]


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Prompts and rows of every batch that was decoded."""
    taken: list[tuple[int, int]] = []
    decode = Backbone._decode

    def noted(backbone: Backbone, model: object, groups: list, *rest: object) -> None:  # type: ignore[type-arg]
        taken.append((len(groups), sum(len(group.rows) for group in groups)))
        decode(backbone, model, groups, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Backbone, "_decode", noted)
    return taken


@pytest.mark.usefixtures("steps")
def test_few_rows_of_each_prompt_are_one_batch(backbone: Load, batches: list[tuple[int, int]]) -> None:
    ours = backbone(batch_size=14)
    together(ours)
    assert batches == [(4, 14)]


def test_prompts_that_fill_batches_of_their_own_are_answered_one_after_another(
    backbone: Load, batches: list[tuple[int, int]]
) -> None:
    asked = [Asked(prompt, ROWS) for prompt, _ in ASKED[:3]]
    wanted = together(backbone(batch_size=5), asked=asked)
    assert batches == [(1, 5)] * 3
    batches.clear()
    assert together(backbone(batch_size=8), asked=asked) == wanted
    assert [rows for _, rows in batches] == [8, 7]


def test_rows_with_long_prefixes_go_together_only_where_memory_has_room(
    backbone: Load, everywhere: None, batches: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In static steps a row has what its group alone shares for itself: then fewer rows may fit into a batch."""
    ours = backbone(batch_size=1)
    asked = [Asked(prompt, ROWS[:4]) for prompt, _ in (ASKED[0], ASKED[4])]
    wanted = together(ours, asked=asked)
    assert batches == [(2, 8)]
    batches.clear()
    token = 2 * 2 * 2 * 8 * 4  # keys and values of two layers with two heads of eight numbers
    monkeypatch.setattr(decoder, "ROWS", (4, 8))
    monkeypatch.setattr(decoder, "free_memory", lambda device: 4 * 128 * token / decoder.SHARE)
    ours.release_decoder(all_of_it=True)
    assert together(ours, asked=asked) == wanted
    assert batches == [(1, 4)] * 2


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("name", ["llama", "gemma3", "lfm2"])
def test_charges_are_those_of_calls_one_after_another(name: str, backbone: Load) -> None:
    charged: list[Spend] = []
    ours = backbone(name, batch_size=8, charge=charged.append)
    answers = ours.generate_each(ASKED, adapter=None, max_new_tokens=6)
    assert sum(charged, Spend()) == sum((spend for _, spend in answers), Spend())
    assert answers == [ours.generate(*asked, adapter=None, max_new_tokens=6) for asked in ASKED]


def test_progress_counts_the_rows_of_all(backbone: Load) -> None:
    shown: list[tuple[int, int]] = []
    ours = backbone(batch_size=8, progress=lambda what, done, total, note="": shown.append((done, total)))
    together(ours)
    assert shown == [(0, 14), (8, 14), (14, 14)]


@pytest.mark.usefixtures("steps")
def test_rows_beyond_the_window_get_no_answer_and_keep_nobody_from_one(backbone: Load) -> None:
    ours = backbone()
    wanted = together(ours)
    lengths = [len(ids) for asked in ASKED for ids in ours.render.prompts_ids(*asked)]
    ours.base.config.max_position_embeddings = limit = sorted(lengths)[8] + 10
    texts = [text for texts in wanted for text in texts]
    fitting = [text if length + 10 <= limit else None for text, length in zip(texts, lengths, strict=True)]
    assert [text for texts in together(ours) for text in texts] == fitting
    assert 0 < fitting.count(None) < len(fitting)


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_rows_leave_the_batch_in_any_order(name: str, backbone: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "ROWS", (1, 2, 4, 8, 16))
    monkeypatch.setattr(decoder, "LATENCY_BOUND", 0)
    monkeypatch.setattr(decoder, "BLOCK", 2)

    def long_enough(example: Example, text: str) -> bool:
        return len(text) >= 7 * ((3 * int(example.name[2:])) % 5)

    ours = backbone(name)
    ours.base.generation_config.eos_token_id = None
    options = {"adapter": None, "max_new_tokens": 40, "stop_early": long_enough}
    found = [texts for texts, _ in ours.generate_each(ASKED, **options)]
    assert found == [ours.generate(*asked, **options)[0] for asked in ASKED]
    assert len({len(text) for texts in found for text in texts}) > 4


@pytest.mark.usefixtures("steps")
def test_constraints_look_at_the_right_rows(backbone: Load) -> None:
    ours = backbone()
    free = together(ours, new=16)
    ours.base.generation_config.repetition_penalty = 1.7
    ours.base.generation_config.no_repeat_ngram_size = 2
    assert together(ours, new=16) == [ours.generate(*asked, adapter=None, max_new_tokens=16)[0] for asked in ASKED]
    assert together(ours, new=16) != free


def test_a_batch_that_memory_does_not_hold_is_halved(backbone: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = backbone()
    wanted, decode, sizes = together(ours), Backbone._decode, []

    def scarce(backbone: Backbone, model: object, groups: list, *rest: object) -> None:  # type: ignore[type-arg]
        if sum(len(group.rows) for group in groups) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        sizes.append(sum(len(group.rows) for group in groups))
        decode(backbone, model, groups, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Backbone, "_decode", scarce)
    assert together(ours) == wanted
    assert sum(sizes) == 14


@pytest.mark.parametrize("where", ["prefixes", "answers"])
def test_prompts_that_memory_does_not_hold_together_are_answered_one_after_another(
    where: str, backbone: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    charged: list[Spend] = []
    ours = backbone(charge=charged.append)
    wanted = ours.generate_each(ASKED, adapter=None, max_new_tokens=10)
    charged.clear()
    run_prefix, decode, made, most = module.run_prefix, Backbone._decode, list[ref[PrefixCache]](), 1

    def scarce() -> None:
        if sum(cache() is not None for cache in made) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def run(model: object, cache: PrefixCache, ids: list[int], device: torch.device) -> PrefixCache:
        found = run_prefix(model, cache, ids, device)  # type: ignore[arg-type]
        if ids:
            made.append(ref(found))
        if where == "prefixes":
            scarce()
        return found

    def decoded(*given: object) -> None:
        scarce()
        decode(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "run_prefix", run)
    monkeypatch.setattr(Backbone, "_decode", decoded)
    for _ in range(2):  # what the first call keeps does not stand in the way of the second
        assert ours.generate_each(ASKED, adapter=None, max_new_tokens=10) == wanted
        assert sum(charged, Spend()) == sum((spend for _, spend in wanted), Spend())
        charged.clear()
    most = 0
    with pytest.raises(NesyLoraError, match="does not hold one row"):
        together(ours)
