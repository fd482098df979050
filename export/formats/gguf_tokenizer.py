"""A tokenizer in a GGUF file: vocabulary, merges, special tokens, and how text is cut before merging."""

import json
from pathlib import Path
from typing import Any

import gguf

from agent.errors import NesyLoraError

WAY_OUT = "Give away the merged model (--merged), and convert it with llama.cpp's own convert_hf_to_gguf.py."
# How text is cut into words before merging, and llama.cpp's name for it.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")
SPLITS = {LLAMA3: "llama-bpe", QWEN2: "qwen2"}


def add_tokenizer(writer: gguf.GGUFWriter, folder: Path, size: int) -> None:
    """Write the tokenizer of a folder.

    Args:
        size: rows of the model's embeddings; what the vocabulary lacks is filled with unused tokens.

    Raises:
        NesyLoraError: it is no byte-level BPE, or cuts text in a way that llama.cpp has no name for.
    """
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    model = tokenizer["model"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(cut_of(tokenizer))
    added = {token["id"]: token for token in tokenizer.get("added_tokens", ())}
    names = {number: text for text, number in model["vocab"].items()} | {i: t["content"] for i, t in added.items()}
    tokens, kinds = [], []
    for number in range(max(size, *(i + 1 for i in names))):
        tokens.append(names.get(number, f"[PAD{number}]"))
        kinds.append(_kind(number in names, added.get(number)))
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]])
    _add_specials(writer, folder, tokenizer, {text: number for number, text in names.items()})
    template = folder / "chat_template.jinja"
    if template.is_file():
        writer.add_chat_template(template.read_text(encoding="utf-8"))


def cut_of(tokenizer: dict[str, Any]) -> str:
    """llama.cpp's name for how a tokenizer cuts text into words. Raises NesyLoraError: it has none that is known."""
    if tokenizer["model"]["type"] != "BPE" or tokenizer["model"].get("byte_fallback"):
        raise NesyLoraError(f"only tokenizers of byte-level BPE are written as GGUF here. {WAY_OUT}")
    first: dict[str, Any] = tokenizer.get("pre_tokenizer") or {}
    steps = first.get("pretokenizers", [first])
    kinds = [step.get("type") for step in steps]
    last = steps[-1]
    if kinds and kinds[-1] == "ByteLevel" and not last.get("add_prefix_space"):
        if kinds == ["ByteLevel"] and last.get("use_regex", True):
            return "gpt-2"
        if kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"] and last.get("use_regex", True):
            return "smollm"
        if kinds == ["Split", "ByteLevel"] and not last.get("use_regex", True):
            name = SPLITS.get(steps[0]["pattern"].get("Regex", ""))
            if name:
                return name
    raise NesyLoraError(f"llama.cpp has no name here for how this tokenizer cuts text. {WAY_OUT}")


def _kind(known: bool, added: dict[str, Any] | None) -> int:
    if not known:
        return int(gguf.TokenType.UNUSED)
    if added is None:
        return int(gguf.TokenType.NORMAL)
    return int(gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED)


def _add_specials(writer: gguf.GGUFWriter, folder: Path, tokenizer: dict[str, Any], ids: dict[str, int]) -> None:
    """Start, ends and padding. The chat template writes the start of text itself, so none is added."""
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    generation = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    ends = generation.get("eos_token_id")
    ends = ends if isinstance(ends, list) else [ends] if ends is not None else []

    def named(name: str) -> int | None:
        token = settings.get(name)
        return ids.get(token["content"] if isinstance(token, dict) else token or "")

    eos = named("eos_token")
    others = [end for end in ends if end != eos]
    if (start := named("bos_token")) is not None:
        writer.add_bos_token_id(start)
    if (end := eos if eos is not None else next(iter(ends), None)) is not None:
        writer.add_eos_token_id(end)
    if others:
        writer.add_eot_token_id(others[0])
    if (pad := named("pad_token")) is not None:
        writer.add_pad_token_id(pad)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
