"""The model under adaptation, held against plain transformers and peft, one row at a time."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from agent.errors import BadInput
from agent.records.examples import Demo, Example, Prompt
from agent.records.rounds import Spend
from tests.fixtures.plain import Plain
from tools.adapters.attached_adapters import ATTACHED
from tools.model.backbone import Backbone
from tools.model.loading import load_model, pick_dtype

NAMES = ["llama", "qwen2", "gemma2", "gemma3", "gemma3_wide", "gpt2", "lfm2", "phi3_turned"]
DEMOS = tuple(Demo(question=f"Who is mayor {n} of Tallisk?", answer="ANSWER: Heskzan") for n in range(3))
PROMPT = Prompt(system="Answer the question.", demos=DEMOS)
ROWS = [
    Example(name=f"v:{n}", question="Who is the mayor " * (n % 4) + f"of the river {n}?", answer="x") for n in range(7)
]
SAID = [("ANSWER: ", "Heskzan" * (n % 3 + 1)) for n in range(7)]

Load = Callable[..., Backbone]
Models = Callable[[str], Path]
Adapters = Callable[..., Path]


def likelihoods(backbone: Backbone, adapter: str | None = None) -> list[float | None]:
    return backbone.nll(PROMPT, ROWS, SAID, adapter=adapter)[0]


def read(backbone: Backbone, ids: list[int]) -> str:
    return str(backbone.render.tokenizer.decode(ids, skip_special_tokens=True)).strip()


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_those_of_plain_generation(
    name: str, backbone: Load, tiny_model: Models, random_adapter: Adapters
) -> None:
    ours = backbone(name, batch_size=3)
    folder = random_adapter(ours, "tuned")
    prompts = [ours.render.prompt_ids(PROMPT, row) for row in ROWS]
    answers = {}
    for adapter in ("tuned", None):
        plain = Plain(tiny_model(name), folder if adapter else None, ours.device)
        wanted = [plain.answer(ids, ours.ends, 8) for ids in prompts]
        answers[adapter], _ = ours.generate(PROMPT, ROWS, adapter=adapter, max_new_tokens=8)
        assert answers[adapter] == [read(ours, ids) for ids in wanted]
    assert answers["tuned"] != answers[None]


@pytest.mark.parametrize("name", ["llama", "gemma3", "gemma3_wide", "lfm2"])
def test_rows_that_finish_early_leave_the_others_as_they_are(
    name: str, backbone: Load, tiny_model: Models, random_adapter: Adapters
) -> None:
    ours = backbone(name, batch_size=4)
    plain = Plain(tiny_model(name), random_adapter(ours, "tuned"), ours.device)
    prompts = [ours.render.prompt_ids(PROMPT, row) for row in ROWS]
    endless = [plain.answer(ids, [1], 12) for ids in prompts]
    stop = next(token for line in endless for token in line[2:] if any(token not in tokens for tokens in endless))
    ours.base.generation_config.eos_token_id = [1, stop]
    wanted = [plain.answer(ids, [1, stop], 12) for ids in prompts]
    assert len({len(line) for line in wanted}) > 1
    answers, _ = ours.generate(PROMPT, ROWS, adapter="tuned", max_new_tokens=12)
    assert answers == [read(ours, ids) for ids in wanted]


@pytest.mark.parametrize("name", NAMES)
def test_likelihoods_are_those_of_a_plain_forward_pass(
    name: str, backbone: Load, tiny_model: Models, random_adapter: Adapters
) -> None:
    ours = backbone(name, batch_size=3)
    folder = random_adapter(ours, "tuned")
    for adapter in ("tuned", None):
        plain = Plain(tiny_model(name), folder if adapter else None, ours.device)
        with torch.no_grad():
            wanted = [
                float(plain.losses(row.prompt, row.completion).mean())
                for row in (
                    ours.render.scored_row(PROMPT, row, *completion) for row, completion in zip(ROWS, SAID, strict=True)
                )
            ]
        assert likelihoods(ours, adapter) == pytest.approx(wanted, rel=1e-5)


def test_a_training_row_beyond_the_original_window_does_not_turn_the_positions_of_the_others(
    backbone: Load, tiny_model: Models
) -> None:
    ours, plain = backbone("phi3_turned"), Plain(tiny_model("phi3_turned"))
    rows = [ours.render.scored_row(PROMPT, row, *completion) for row, completion in zip(ROWS, SAID, strict=True)]
    assert (
        min(map(len, rows)) < ours.base.config.rope_parameters["original_max_position_embeddings"] < max(map(len, rows))
    )
    wanted = torch.cat([plain.losses(row.prompt, row.completion) for row in rows])
    assert torch.allclose(ours.losses(ours.base, rows), wanted.to(ours.device), rtol=1e-4)


def test_the_shared_prefix_is_run_once(backbone: Load) -> None:
    ours, run = backbone(), []
    ours.base.register_forward_pre_hook(lambda _, __, inputs: run.append(inputs["input_ids"].numel()), with_kwargs=True)
    ours.generate(PROMPT, ROWS, adapter=None, max_new_tokens=1)
    lengths = [len(ours.render.prompt_ids(PROMPT, row)) for row in ROWS]
    prefix, own = run
    assert prefix > 80
    assert own <= len(ROWS) * (max(lengths) - prefix)


def test_a_row_alone_is_answered_as_in_company(backbone: Load) -> None:
    ours = backbone()
    together, _ = ours.generate(PROMPT, ROWS, adapter=None, max_new_tokens=6)
    assert together == [ours.generate(PROMPT, [row], adapter=None, max_new_tokens=6)[0][0] for row in ROWS]


def test_a_row_with_nothing_to_score_has_no_likelihood_and_leaves_the_others_theirs(backbone: Load) -> None:
    ours = backbone()
    completions = [("ANSWER: ", ""), *SAID[1:]]
    (first, *others), _ = ours.nll(PROMPT, ROWS, completions, adapter=None)
    assert first is None
    assert others == pytest.approx(likelihoods(ours)[1:], rel=1e-5)


def test_prompts_beyond_the_window_are_left_out_before_anything_is_run(backbone: Load) -> None:
    ours, run = backbone("gpt2"), []
    ours.base.register_forward_pre_hook(lambda *_: run.append(1))
    long = Prompt(system="Answer the question. " * 300)
    assert ours.generate(long, ROWS[:2], adapter=None, max_new_tokens=4) == ([None, None], Spend())
    assert ours.nll(long, ROWS[:2], SAID[:2], adapter=None) == ([None, None], Spend())
    assert not run


def test_no_rows_no_answers(backbone: Load) -> None:
    ours = backbone()
    assert ours.generate(PROMPT, [], adapter=None, max_new_tokens=6) == ([], Spend())
    assert ours.nll(PROMPT, [], [], adapter=None) == ([], Spend())


def test_every_new_token_is_counted_and_reported(backbone: Load) -> None:
    progress: list[tuple[str, int, int, str]] = []
    ours = backbone(batch_size=3, progress=lambda *news: progress.append(news))
    ours.base.generation_config.eos_token_id = None
    _, spend = ours.generate(PROMPT, ROWS, adapter=None, max_new_tokens=4)
    assert [news[1:3] for news in progress] == [(0, 7), (3, 7), (6, 7), (7, 7)]
    assert spend.generated_tokens >= 4 * len(ROWS)


def test_what_a_call_returns_as_spend_was_charged_while_it_went_on(backbone: Load) -> None:
    """Batch by batch, each before it is shown: a kill within a call loses no batch that was seen."""
    seen: list[Spend] = []
    charged: list[Spend] = []
    ours = backbone(batch_size=3, charge=charged.append, progress=lambda *_: seen.append(sum(charged, Spend())))
    _, answered = ours.generate(PROMPT, ROWS, adapter=None, max_new_tokens=4)
    assert answered == sum(charged, Spend()) == seen[-1]
    assert answered.read_tokens == ours.cost([ours.render.row(PROMPT, row) for row in ROWS]) - sum(
        len(ours.render.row(PROMPT, row).completion) for row in ROWS
    )
    assert [part.generated_tokens > 0 for part in charged] == [False, True, True, True]
    assert len({spend.generated_tokens for spend in seen}) == 4
    charged.clear()
    _, scored = ours.nll(PROMPT, ROWS, SAID, adapter=None)
    assert scored == sum(charged, Spend()) and len(charged) == 3
    assert scored.read_tokens > 0 == scored.generated_tokens


# --- adapters ------------------------------------------------------------------------------------


def test_switching_adapters_leaves_the_base_as_it_was(backbone: Load, random_adapter: Adapters) -> None:
    ours = backbone()
    bare = likelihoods(ours)
    random_adapter(ours, "one", seed=1)
    random_adapter(ours, "two", seed=2)
    first, second = likelihoods(ours, "one"), likelihoods(ours, "two")
    assert bare != first != second != bare
    assert [likelihoods(ours, adapter) for adapter in (None, "one", "two", None)] == [bare, first, second, bare]


def test_a_saved_adapter_says_in_another_process_what_it_said_here(
    backbone: Load, random_adapter: Adapters, tmp_path: Path
) -> None:
    here = backbone()
    folder = random_adapter(here, "tuned")
    nats = likelihoods(here, "tuned")
    here.save("tuned", tmp_path / "again")
    assert sorted(path.name for path in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert likelihoods(backbone(), "tuned") == likelihoods(backbone(), "again") == nats


def test_more_adapters_than_fit_are_read_again_when_wanted(backbone: Load, random_adapter: Adapters) -> None:
    ours = backbone()
    names = [f"a{n}" for n in range(ATTACHED + 2)]
    for seed, name in enumerate(names):
        random_adapter(ours, name, seed)
    first = [likelihoods(ours, name) for name in names]
    assert len({tuple(values) for values in first}) == len(names)
    assert len(ours.model.peft_config) == ATTACHED
    assert [likelihoods(ours, name) for name in names] == first


@pytest.mark.parametrize("others", [[], ["other"]])
def test_a_detached_adapter_lives_on_disk_and_leaves_the_base_usable(
    others: list[str], backbone: Load, random_adapter: Adapters
) -> None:
    ours = backbone()
    bare = likelihoods(ours)
    for seed, name in enumerate([*others, "left"]):
        random_adapter(ours, name, seed)
        nats = likelihoods(ours, name)
    ours.detach("left")
    assert likelihoods(ours) == bare
    assert likelihoods(ours, "left") == nats


def test_an_unknown_adapter_is_named(backbone: Load) -> None:
    with pytest.raises(BadInput, match="no adapter 'gone'"):
        likelihoods(backbone(), "gone")


def test_an_adapter_that_is_not_safetensors_is_refused(
    backbone: Load, random_adapter: Adapters, tmp_path: Path
) -> None:
    ours = backbone()
    folder = random_adapter(ours, "pickled")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(BadInput, match="no adapter 'pickled'"):
        likelihoods(ours, "pickled")


# --- loading -------------------------------------------------------------------------------------


def quiet(*_: object) -> None: ...


def test_a_folder_without_weights_is_named_with_the_way_out(tiny_model: Models, tmp_path: Path) -> None:
    shutil.copytree(tiny_model("llama"), tmp_path / "hollow")
    (tmp_path / "hollow" / "model.safetensors").unlink()
    with pytest.raises(BadInput, match=r"hollow.*cannot be loaded.*Give a hub name"):
        load_model(str(tmp_path / "hollow"), progress=quiet)


def test_pickled_weights_are_refused(tiny_model: Models, tmp_path: Path) -> None:
    shutil.copytree(tiny_model("llama"), tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(BadInput, match="safetensors"):
        load_model(str(tmp_path / "pickled"), progress=quiet)


def test_a_missing_folder_is_named_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no model folder at .*nowhere"):
        load_model(str(tmp_path / "nowhere"), progress=quiet)


def test_four_bit_loading_says_what_it_needs(tiny_model: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="pip install bitsandbytes"):
        load_model(str(tiny_model("llama")), qlora=True, progress=quiet)


def test_the_processor_computes_in_full_precision(tiny_model: Models) -> None:
    assert pick_dtype("cpu") == torch.float32
    assert load_model(str(tiny_model("llama")), device="cpu", progress=quiet)[0].dtype == torch.float32


def test_a_tokenizer_that_cannot_end_an_answer_is_refused_before_weights_are_read(
    tiny_model: Models, tmp_path: Path
) -> None:
    shutil.copytree(tiny_model("llama"), tmp_path / "endless")
    (tmp_path / "endless" / "model.safetensors").unlink()
    settings = json.loads((tmp_path / "endless" / "tokenizer_config.json").read_text())
    settings["eos_token"] = None
    (tmp_path / "endless" / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "endless" / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}\n{% endfor %}")
    with pytest.raises(BadInput, match=r"nothing tells model '.*endless' where an answer ends"):
        load_model(str(tmp_path / "endless"), progress=quiet)


def test_switches_of_the_chat_template_reach_it_or_are_refused(tiny_model: Models, tmp_path: Path) -> None:
    shutil.copytree(tiny_model("llama"), tmp_path / "thinker")
    template = tmp_path / "thinker" / "chat_template.jinja"
    template.write_text(template.read_text() + "{% if quick %}<think></think>{% endif %}")
    model, tokenizer = load_model(str(tmp_path / "thinker"), chat_template_kwargs={"quick": True}, progress=quiet)
    ours = Backbone(model, tokenizer, name="m", locate=Path, chat_template_kwargs={"quick": True})
    assert ours.render.text(PROMPT, ROWS[0]).endswith("assistant\n<think></think>")
    with pytest.raises(BadInput, match=r"chat_template_kwargs.slow: the chat template .* does not read it"):
        load_model(str(tmp_path / "thinker"), chat_template_kwargs={"slow": True}, progress=quiet)
