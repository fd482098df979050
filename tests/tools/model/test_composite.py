"""A model of text and vision: its language part is measured and trained, and nothing else of it is touched."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from agent.config.lora import Lora
from agent.errors import BadInput
from agent.records.actions import TrainLora
from agent.records.examples import Example, Prompt
from agent.records.training import TrainingJob
from tests.conftest import BODY, SMALL
from tests.fixtures.plain import Plain
from tools.model.backbone import Backbone
from tools.model.composite import window
from tools.model.loading import load_model
from tools.training.lora import LoraTrainer

PROMPT = Prompt(system="Answer the question.")
ROWS = [Example(name=f"train:{n}", question=f"Who is the mayor of {n}?", answer="Heskzan") for n in range(4)]


def quiet(*_: object) -> None: ...


@pytest.fixture(scope="module")
def composite(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[[str], Path]) -> Path:
    """A random Gemma 3 of text and vision, as transformers saves it."""
    folder = tmp_path_factory.mktemp("composite")
    torch.manual_seed(0)
    config = transformers.Gemma3Config(
        text_config=SMALL | BODY | {"sliding_window": 16},
        vision_config={
            "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 28, "patch_size": 14,
        },
        mm_tokens_per_image=4, boi_token_index=380, eoi_token_index=381, image_token_index=382,
    )  # fmt: skip
    transformers.Gemma3ForConditionalGeneration(config).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tiny_model("llama")).save_pretrained(folder)
    return folder


@pytest.fixture
def model(composite: Path, tmp_path: Path) -> Backbone:
    base, tokenizer = load_model(str(composite), device="cpu", dtype="float32", progress=quiet)
    return Backbone(base, tokenizer, name="composite", locate=tmp_path.joinpath)


def test_sizes_are_those_of_the_text_part_and_rows_are_packed(model: Backbone) -> None:
    assert model.window == 1024
    assert model.packs
    assert model.generate(Prompt(system="Answer. " * 900), ROWS, adapter=None, max_new_tokens=4)[0] == [None] * 4


def test_training_reaches_the_language_part_and_nothing_else(model: Backbone, composite: Path, tmp_path: Path) -> None:
    before = model.nll(PROMPT, ROWS, [("", row.answer) for row in ROWS], adapter=None)
    action, rows = TrainLora(epochs=3, learning_rate=1e-2), [(PROMPT, row) for row in ROWS]
    trainer = LoraTrainer(model, Lora(rank=4), quiet)
    log = trainer.train(
        TrainingJob(adapter="new", rows=rows, action=action, folder=tmp_path / "new", parent=None, seed=0)
    )
    assert log.steps[-1].loss < log.steps[0].loss
    names = [name for name, _ in model.model.named_parameters() if "lora_" in name]
    assert names and all("language_model" in name for name in names)
    plain = Plain(composite, tmp_path / "new")  # in another process, through transformers and peft alone
    tuned, _ = model.nll(PROMPT, ROWS, [("", row.answer) for row in ROWS], adapter="new")
    for row, nats in zip(ROWS, tuned, strict=True):
        tokens = model.render.scored_row(PROMPT, row, "", row.answer)
        assert float(plain.losses(tokens.prompt, tokens.completion).mean()) == pytest.approx(nats, rel=1e-4)
    assert model.nll(PROMPT, ROWS, [("", row.answer) for row in ROWS], adapter=None) == before


@pytest.mark.parametrize(("excluded", "spared"), [(["q_proj"], "q_proj"), (r".*\.layers\.0\..*", "layers.0")])
def test_what_a_user_excludes_stays_excluded(model: Backbone, excluded: Any, spared: str, tmp_path: Path) -> None:
    from peft import LoraConfig

    model.create("new", LoraConfig(r=2, target_modules="all-linear", exclude_modules=excluded, task_type="CAUSAL_LM"))
    names = [name for name, _ in model.model.named_parameters() if "lora_" in name]
    assert any("k_proj" in name for name in names)
    assert not any(spared in name or "vision" in name for name in names)


def test_what_is_no_language_model_is_refused_in_a_sentence_before_its_weights_are_read(
    tmp_path: Path, tiny_model: Callable[[str], Path]
) -> None:
    transformers.T5Config(d_model=8, num_layers=1).save_pretrained(tmp_path)  # and no weights
    transformers.AutoTokenizer.from_pretrained(tiny_model("llama")).save_pretrained(tmp_path)
    with pytest.raises(BadInput, match="of the kind 't5', which transformers does not run as a causal language model"):
        load_model(str(tmp_path), progress=quiet)


@pytest.mark.parametrize(
    ("config", "limit", "wanted"),
    [
        (transformers.MptConfig(max_seq_len=77), int(1e30), 77),
        (transformers.GPT2Config(n_positions=55), 99, 55),
        (transformers.BloomConfig(), 99, 99),
        (transformers.MambaConfig(), int(1e30), None),
    ],
    ids=["its own name", "an alias", "the tokenizer's", "none"],
)
def test_the_window_is_found_under_any_name(config: Any, limit: int, wanted: int | None, tmp_path: Path) -> None:
    class Tokenizer:
        model_max_length = limit

    found = window(config, Tokenizer())
    assert found == wanted if wanted else found > 10**9
