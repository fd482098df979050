"""A model as GGUF: read back by transformers, which has its own reader, and by llama.cpp where that is installed."""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Regex, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from agent.errors import NesyLoraError
from export.formats.gguf_file import permuted, write_gguf
from export.formats.gguf_lora import write_lora_gguf
from export.formats.gguf_tokenizer import BYTES, LLAMA3, MARK, QWEN2, cut_of, piece_scores
from tests.export.test_template import GEMMA

TEXT = "Who is the mayor of Orrowmere? ANSWER: 0 1 2\n{}"


@pytest.fixture
def gemma(saved: Callable[[str], Path]) -> Path:
    """A Gemma 3 with a tokenizer as Google's: marked spaces, unknown letters as bytes, merges of SentencePiece."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers
    from transformers import PreTrainedTokenizerFast

    from tests.conftest import TEXT as WORDS

    folder = saved("gemma3")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", *BYTES]
    learner = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    learner.normalizer = normalizers.Replace(" ", MARK)
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    learner.train_from_iterator(WORDS * 20, trainer)
    learned = json.loads(learner.to_str())["model"]
    vocabulary = learned["vocab"]
    pieces = ["".join(pair) for pair in learned["merges"]]
    merges = [
        (piece[:place], piece[place:]) for piece in dict.fromkeys(pieces) for place in range(1, len(piece))
        if piece[:place] in vocabulary and piece[place:] in vocabulary
    ]  # fmt: skip
    made = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Replace(" ", MARK)
    made.decoder = decoders.Sequence([decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>",
        additional_special_tokens=["<start_of_turn>", "<end_of_turn>"],
    )  # fmt: skip
    tokenizer.chat_template = GEMMA
    tokenizer.save_pretrained(folder)
    return folder


def test_a_gemmas_pieces_have_scores_in_the_order_of_their_merges(gemma: Path, tmp_path: Path) -> None:
    fields = GGUFReader(written(gemma, tmp_path)).fields
    tokens, scores = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "scores"))
    kinds = fields["tokenizer.ggml.token_type"].contents()
    assert fields["tokenizer.ggml.model"].contents() == "llama"
    assert fields["tokenizer.ggml.add_space_prefix"].contents() is False
    assert (kinds[0], kinds[tokens.index("<0x0A>")], kinds[-1]) == (3, 6, 1)
    merges = json.loads((gemma / "tokenizer.json").read_text())["model"]["merges"]
    order = list(dict.fromkeys("".join(pair) for pair in merges))
    assert sorted(order, key=lambda piece: -scores[tokens.index(piece)]) == order


@pytest.mark.parametrize("spoil", ["order", "lost"])
def test_merges_that_are_not_sentencepieces_are_refused(spoil: str, gemma: Path) -> None:
    model = json.loads((gemma / "tokenizer.json").read_text())["model"]
    last = next(piece for piece in reversed(model["merges"]) if len("".join(piece)) > 2)
    if spoil == "lost":
        model["merges"].remove(last)
    else:
        model["merges"].insert(0, last)
    with pytest.raises(NesyLoraError, match="convert_hf_to_gguf"):
        piece_scores(model, set(model["vocab"]) - {"".join(last)} if spoil == "lost" else set())


def written(folder: Path, into: Path, kind: str = "f16") -> Path:
    file = into / f"{kind}.gguf"
    write_gguf(AutoModelForCausalLM.from_pretrained(folder, dtype="float32"), folder, file, kind, "tiny")
    return file


@pytest.mark.parametrize("name", ["llama", "llama_tied", "qwen2", "qwen3", "gemma3"])
def test_transformers_reads_the_same_weights_back(name: str, saved: Callable[[str], Path], tmp_path: Path) -> None:
    folder = saved(name)
    file = written(folder, tmp_path)
    ours = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").state_dict()
    read = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype="float32").state_dict()
    assert ours.keys() == read.keys()
    for part, weight in ours.items():
        torch.testing.assert_close(read[part], weight, atol=2e-3, rtol=1e-3, msg=part)


def test_eight_bits_are_near(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tiny_model("llama")
    read = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=written(folder, tmp_path, "q8_0").name)
    ours = AutoModelForCausalLM.from_pretrained(folder)
    for part, weight in ours.state_dict().items():
        torch.testing.assert_close(read.state_dict()[part].float(), weight, atol=1e-2, rtol=1e-2, msg=part)
    types = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(tmp_path / "q8_0.gguf").tensors}
    assert types["token_embd.weight"] == "Q8_0" and types["output_norm.weight"] == "F32"


def test_tokens_merges_template_and_ends_are_the_models_own(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tiny_model("llama")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    fields = GGUFReader(written(folder, tmp_path)).fields
    assert fields["tokenizer.ggml.tokens"].contents()[:4] == tokenizer.convert_ids_to_tokens([0, 1, 2, 3])
    assert len(fields["tokenizer.ggml.tokens"].contents()) == 400
    assert fields["tokenizer.chat_template"].contents() == tokenizer.chat_template
    assert fields["tokenizer.ggml.eos_token_id"].contents() == tokenizer.eos_token_id
    assert fields["tokenizer.ggml.add_bos_token"].contents() is False
    assert fields["tokenizer.ggml.pre"].contents() == "gpt-2"


def test_rows_of_q_and_k_are_paired() -> None:
    rows = torch.arange(8.0)[:, None]  # two heads of four rows: a pair is turned together
    assert permuted(rows, 2).flatten().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


@pytest.mark.parametrize(
    ("cut", "name"),
    [
        (pre_tokenizers.ByteLevel(add_prefix_space=False), "gpt-2"),
        ([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)], "smollm"),
        (LLAMA3, "llama-bpe"),
        (QWEN2, "qwen2"),
        ("[a-z]+", None),
        (pre_tokenizers.Whitespace(), None),
    ],
)
def test_how_text_is_cut_is_known_by_name_or_refused(
    cut: Any, name: str | None, tiny_model: Callable[[str], Path]
) -> None:
    if isinstance(cut, str):
        split = pre_tokenizers.Split(Regex(cut), behavior="isolated", invert=False)
        cut = [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    tokenizer = AutoTokenizer.from_pretrained(tiny_model("llama")).backend_tokenizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cut) if isinstance(cut, list) else cut
    if name is None:
        with pytest.raises(NesyLoraError, match="has no name"):
            cut_of(json.loads(tokenizer.to_str()))
    else:
        assert cut_of(json.loads(tokenizer.to_str())) == name


def test_a_qwen_tokenizer_is_saved_as_it_works(tiny_model: Callable[[str], Path], saved: Callable[[str], Path]) -> None:
    given = json.loads((tiny_model("qwen2") / "tokenizer.json").read_text())
    assert cut_of(given) == "gpt-2"
    assert cut_of(json.loads((saved("qwen2") / "tokenizer.json").read_text())) == "qwen2"


@pytest.mark.parametrize(
    ("name", "why"), [("mixtral", "of the kind 'mixtral'"), ("llama_turned", "'yarn'"), ("gemma3", "attention scale")]
)
def test_what_is_not_written_is_refused_with_the_way_out(
    name: str, why: str, tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model(name.replace("_turned", "")))
    if name == "llama_turned":
        model.config.rope_parameters = {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4}
    with pytest.raises(NesyLoraError, match=f"{why}.*convert_hf_to_gguf"):
        write_gguf(model, tiny_model("llama"), tmp_path / "a.gguf", "f16", "tiny")


def test_a_lora_stands_in_it_as_llama_cpp_scales_it(saved: Callable[[str], Path], tmp_path: Path) -> None:
    adapter, model = lora(saved("llama"), tmp_path)
    write_lora_gguf(model, adapter, tmp_path / "lora.gguf", "tiny")
    assert not hasattr(model, "peft_config") and "lora" not in " ".join(name for name, _ in model.named_parameters())
    reader = GGUFReader(tmp_path / "lora.gguf")
    found = {tensor.name: torch.tensor(tensor.data) for tensor in reader.tensors}
    scale = reader.fields["adapter.lora.alpha"].contents() / 4
    assert reader.fields["general.type"].contents() == "adapter"
    adapted = PeftModel.from_pretrained(model, adapter)
    for part, ours, heads in (("attn_q", "self_attn.q_proj", 4), ("ffn_up", "mlp.up_proj", None)):
        delta = adapted.get_base_model().get_submodule(f"model.layers.1.{ours}").get_delta_weight("default").detach()
        a, b = found[f"blk.1.{part}.weight.lora_a"], found[f"blk.1.{part}.weight.lora_b"]
        torch.testing.assert_close(scale * b @ a, permuted(delta, heads) if heads else delta)


def with_llama3_positions(folder: Path) -> Any:
    """The model of a folder with positions scaled as those of Llama 3.1 are, saved there."""
    config = AutoConfig.from_pretrained(folder)
    config.rope_parameters = {
        "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(folder, config=config)
    model.save_pretrained(folder)
    return model


def test_scaled_positions_stand_in_it_as_the_model_turns(saved: Callable[[str], Path], tmp_path: Path) -> None:
    """transformers' reader passes them over, so its logits tell nothing of them."""
    model = with_llama3_positions(folder := saved("llama"))
    found = {tensor.name: torch.tensor(tensor.data) for tensor in GGUFReader(written(folder, tmp_path)).tensors}
    turns = model.model.rotary_emb.inv_freq
    unscaled = 1e4 ** -(torch.arange(len(turns)) / len(turns))
    assert not torch.allclose(turns, unscaled)
    torch.testing.assert_close(unscaled / found["rope_freqs.weight"], turns)


@pytest.mark.parametrize("options", [{"use_dora": True}, {"target_modules": ["embed_tokens"]}])
def test_another_adapter_is_refused_with_the_way_out(
    options: dict[str, Any], saved: Callable[[str], Path], tmp_path: Path
) -> None:
    adapter, model = lora(saved("llama"), tmp_path, **options)
    with pytest.raises(NesyLoraError, match="--gguf f16"):
        write_lora_gguf(model, adapter, tmp_path / "lora.gguf", "tiny")
    assert not (tmp_path / "lora.gguf").exists() and not hasattr(model, "peft_config")


def lora(base: Path, folder: Path, **options: Any) -> tuple[Path, Any]:
    """A random rsLoRA on disk, and its base."""
    torch.manual_seed(0)
    settings = {
        "target_modules": ["q_proj", "k_proj", "up_proj"],
        "r": 4,
        "lora_alpha": 8,
        "use_rslora": True,
    } | options
    model = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    get_peft_model(model, LoraConfig(init_lora_weights=False, **settings)).save_pretrained(folder / "adapter")
    return folder / "adapter", AutoModelForCausalLM.from_pretrained(base, dtype="float32")


@pytest.mark.skipif(find_spec("xllamacpp") is None, reason="pip install xllamacpp")
def test_llama_cpp_answers_with_the_lora_as_peft(saved: Callable[[str], Path], tmp_path: Path) -> None:
    folder = saved("llama")
    adapter, model = lora(folder, tmp_path)
    write_lora_gguf(model, adapter, tmp_path / "lora.gguf", "tiny")
    compare(folder, PeftModel.from_pretrained(model, adapter), written(folder, tmp_path), tmp_path, lora="lora.gguf")


@pytest.mark.skipif(find_spec("xllamacpp") is None, reason="pip install xllamacpp")
@pytest.mark.parametrize("name", ["llama", "llama_tied", "llama_biased", "qwen2", "qwen3", "gemma3"])
def test_llama_cpp_answers_as_transformers(name: str, saved: Callable[[str], Path], tmp_path: Path) -> None:
    folder = saved(name)
    compare(folder, AutoModelForCausalLM.from_pretrained(folder), written(folder, tmp_path), tmp_path)


@pytest.mark.skipif(find_spec("xllamacpp") is None, reason="pip install xllamacpp")
def test_llama_cpp_answers_as_a_gemma_with_its_own_tokenizer(gemma: Path, tmp_path: Path) -> None:
    compare(gemma, AutoModelForCausalLM.from_pretrained(gemma), written(gemma, tmp_path), tmp_path)


def compare(folder: Path, model: Any, file: Path, work: Path, lora: str | None = None) -> None:
    """The answers of llama.cpp are the model's own."""
    rows = [
        [{"role": "user", "content": text}] for text in (TEXT, "1", "Tallisk?", "  The  mayor,\n\n\u00bd \U0001f600!")
    ]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    job = {"model": str(file), "rows": rows, "max_new_tokens": 6, "stop": [], "context": 128}
    (work / "asked.json").write_text(json.dumps(job | ({"lora": str(work / lora)} if lora else {})))
    script = Path(__file__).parents[2] / "export" / "engines" / "with_llama_cpp.py"
    command = [sys.executable, "-I", str(script), str(work / "asked.json"), str(work / "answered.json")]
    subprocess.run(command, check=True, capture_output=True)
    found = json.loads((work / "answered.json").read_text())
    config = GenerationConfig(do_sample=False, max_new_tokens=6, eos_token_id=1, pad_token_id=2)
    for row, prompt, answer in zip(rows, found["prompts"], found["answers"], strict=True):
        asked = tokenizer.apply_chat_template(row, add_generation_prompt=True, return_dict=True, return_tensors="pt")
        assert prompt == asked["input_ids"][0].tolist()
        ids = model.generate(**asked, generation_config=config)[0, len(prompt) :]
        assert answer.strip() == tokenizer.decode(ids, skip_special_tokens=True).strip()
