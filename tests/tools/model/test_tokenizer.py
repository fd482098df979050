"""A tokenizer reads text as its own file has it, whatever class transformers builds for it."""

import json
from pathlib import Path

import pytest
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tools.model.tokenizer import load_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Byte-level BPE whose merges cross words, as SuperBPE's do; in a folder of a Qwen 2 model."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<|endoftext|>"]
    )
    tokenizer.train_from_iterator(["the cat sat on the mat"] * 50, trainer)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(
        tmp_path
    )
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    return tmp_path


def test_what_the_file_says_counts(folder: Path) -> None:
    whole = Tokenizer.from_file(str(folder / "tokenizer.json")).encode("the cat sat on the mat").ids
    tokenizer = load_tokenizer(str(folder))
    assert tokenizer.encode("the cat sat on the mat", add_special_tokens=False) == whole
    assert tokenizer.eos_token == "<|endoftext|>" and tokenizer.decode(whole) == "the cat sat on the mat"


def test_a_class_that_reads_as_the_file_does_stays(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert type(load_tokenizer(str(folder))) is type(transformers.AutoTokenizer.from_pretrained(str(folder)))
