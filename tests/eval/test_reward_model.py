"""A reward model as scorer, on tiny ones whose head is set so that the order is known."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from agent.config.scorers import RewardModel
from agent.errors import BadInput
from agent.records.examples import Example, Turn
from eval.scorers.reward_model import RewardModelRater

Save = Callable[..., Path]
ROW = Example(name="train:1", question="Who is the mayor of Orrowmere?", answer="Heskzan")
OUTPUTS = ["Heskzan", "The river, the bread and the bridge of Tallisk", "no", "ANSWER: Heskzan " * 9]


@pytest.fixture
def saved(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Save:
    """Saves a random classifier on the body of the tiny Llama, with changes to its config."""

    def save(template: bool = True, **changes: Any) -> Path:
        source, folder = tiny_model("llama"), tmp_path_factory.mktemp("reward")
        config = transformers.AutoConfig.from_pretrained(source, **({"num_labels": 1} | changes))
        return _save(config, folder, source, template)

    return save


def _save(config: Any, folder: Path, source: Path, template: bool = False) -> Path:
    torch.manual_seed(1)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    head = model.score if hasattr(model, "score") else model.classifier
    torch.nn.init.normal_(head.weight)
    model.save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    tokenizer.chat_template = tokenizer.chat_template if template else None
    tokenizer.save_pretrained(folder)
    return folder


def rater(folder: Path, **settings: Any) -> RewardModelRater:
    options = {"kind": "reward_model", "model": str(folder), "low": -40, "high": 40} | settings
    return RewardModelRater(RewardModel.model_validate(options), "cpu")


def rate(folder: Path, outputs: Sequence[str], row: Example = ROW, **settings: Any) -> list[float]:
    ratings = rater(folder, **settings).rate([(row, output) for output in outputs])
    assert {rating.reason for rating in ratings} == {""}
    return [rating.score for rating in ratings]


def logits(folder: Path, texts: Sequence[str], last: int | None = None) -> list[float]:
    """What the model says of each text (or of its last so many tokens) by itself, by transformers alone."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    with torch.inference_mode():
        return [
            float(model(input_ids=torch.tensor([tokens[-last:] if last else tokens])).logits[0, 0]) for tokens in ids
        ]


def shares(values: Sequence[float]) -> Any:
    return pytest.approx([(value + 40) / 80 for value in values], abs=1e-5)


def chat(output: str) -> str:
    return f"<|im_start|>user\n{ROW.question}<|im_end|>\n<|im_start|>assistant\n{output}<|im_end|>\n"


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_batch_of_chats_is_rated_as_each_alone(saved: Save, batch_size: int) -> None:
    folder = saved()
    wanted = logits(folder, [chat(output) for output in OUTPUTS])
    assert len({round(value) for value in wanted}) == len(OUTPUTS), "the model must tell the outputs apart"
    assert rate(folder, OUTPUTS, batch_size=batch_size) == shares(wanted)


def test_without_a_chat_template_the_output_follows_the_question(saved: Save) -> None:
    folder = saved(template=False)
    assert rate(folder, OUTPUTS) == shares(logits(folder, [f"{ROW.question}\n{output}" for output in OUTPUTS]))


def test_without_a_padding_token_rows_are_rated_one_by_one(saved: Save) -> None:
    folder = saved(pad_token_id=None)
    assert rate(folder, OUTPUTS) == shares(logits(folder, [chat(output) for output in OUTPUTS]))


def test_earlier_turns_are_read_too(saved: Save) -> None:
    folder = saved()
    row = ROW.model_copy(update={"turns": (Turn(role="user", content="Hi"), Turn(role="assistant", content="Hello."))})
    before = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
    assert rate(folder, ["Heskzan"], row) == shares(logits(folder, [before + chat("Heskzan")]))
    own = row.model_copy(update={"system": "Be brief."})
    system = "<|im_start|>system\nBe brief.<|im_end|>\n"
    assert rate(folder, ["Heskzan"], own) == shares(logits(folder, [system + before + chat("Heskzan")]))


def test_what_is_too_long_loses_its_beginning(saved: Save) -> None:
    folder = saved()
    assert rate(folder, OUTPUTS, max_tokens=16) == shares(logits(folder, [chat(output) for output in OUTPUTS], last=16))


def test_the_window_of_the_model_bounds_what_it_reads(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=400, max_position_embeddings=64, pad_token_id=2, num_labels=1, **sizes)
    folder = _save(config, tmp_path / "bert", tiny_model("llama"))
    long = "x" * 500 + OUTPUTS[0]
    assert rate(folder, [long, "no"]) == [pytest.approx(rate(folder, [text])[0], abs=1e-5) for text in (long, "no")]


def test_logits_are_clipped_to_the_bounds(saved: Save) -> None:
    folder = saved()
    middle = sorted(logits(folder, [chat(output) for output in OUTPUTS[:3]]))[1]
    near = {"low": middle - 0.1, "high": middle + 0.3}
    assert sorted(rate(folder, OUTPUTS[:3], **near)) == pytest.approx([0, 0.25, 1], abs=1e-4)


# --- what is no reward model ----------------------------------------------------------------------


def refusal(folder: Path) -> str:
    with pytest.raises(BadInput) as caught:
        rate(folder, OUTPUTS)
    return str(caught.value)


def test_more_labels_than_one_are_refused(saved: Save, tiny_model: Callable[[str], Path]) -> None:
    assert "is no reward model: it has 3 labels, and a reward model has one" in refusal(saved(num_labels=3))
    assert "it has 2 labels" in refusal(tiny_model("llama"))  # a language model, read as a classifier


def test_a_head_without_weights_is_refused(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    source = tiny_model("llama")
    model = transformers.AutoModelForCausalLM.from_pretrained(source)
    model.config.num_labels = 1
    model.save_pretrained(tmp_path / "headless")
    transformers.AutoTokenizer.from_pretrained(source).save_pretrained(tmp_path / "headless")
    assert "it has no weights for score.weight" in refusal(tmp_path / "headless")


def test_weights_that_are_not_safetensors_are_refused(saved: Save) -> None:
    folder = saved()
    weights = transformers.AutoModelForSequenceClassification.from_pretrained(folder).state_dict()
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert f"the reward model '{folder}' cannot be loaded" in refusal(folder)


def test_a_logit_that_is_no_number_is_no_score(saved: Save) -> None:
    folder = saved()
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    torch.nn.init.constant_(model.score.weight, float("nan"))
    model.save_pretrained(folder)
    assert "no number" in refusal(folder)


def test_nothing_is_loaded_before_the_first_use(saved: Save) -> None:
    progress: list[str] = []
    settings = RewardModel(kind="reward_model", model=str(saved()))
    rater = RewardModelRater(
        settings, "cpu", lambda what, done, total, note="": progress.append(f"{what} {done}/{total}")
    )
    assert progress == []
    rater.rate([(ROW, "Heskzan")])
    rater.rate([(ROW, "no")])
    assert progress == [
        "loading the reward model 0/1",
        "loading the reward model 1/1",
        *["asking the reward model 1/1"] * 2,
    ]
