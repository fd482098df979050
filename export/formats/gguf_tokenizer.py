"""A tokenizer in a GGUF file: vocabulary, merges, special tokens, and how text is cut before merging."""

import json
from collections.abc import Set
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
MARK = "\N{LOWER ONE EIGHTH BLOCK}"  # SentencePiece's space
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
UNMERGED = -1e6  # of what no merge makes


def add_tokenizer(writer: gguf.GGUFWriter, folder: Path, size: int) -> None:
    """Write the tokenizer of a folder: a byte-level BPE, or a SentencePiece as Gemma's.

    Args:
        size: rows of the model's embeddings; what the vocabulary lacks is filled with unused tokens.

    Raises:
        NesyLoraError: it is neither, or cuts text in a way that llama.cpp has no name for.
    """
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    model = tokenizer["model"]
    pieces = is_sentencepiece(tokenizer)
    writer.add_tokenizer_model("llama" if pieces else "gpt2")
    writer.add_tokenizer_pre("default" if pieces else cut_of(tokenizer))
    added = {token["id"]: token for token in tokenizer.get("added_tokens", ())}
    names = {number: text for text, number in model["vocab"].items()} | {i: t["content"] for i, t in added.items()}
    count = range(max(size, *(i + 1 for i in names)))
    tokens = [names.get(number, f"[PAD{number}]") for number in count]
    kinds = [_kind(number in names, added.get(number)) for number in count]
    if pieces:
        scores = piece_scores(model, {token["content"] for token in added.values()})
        bytes_of = {model["vocab"][name] for name in BYTES if name in model["vocab"]}
        kinds = [gguf.TokenType.BYTE if i in bytes_of else kind for i, kind in enumerate(kinds)]
        writer.add_token_scores([scores.get(name, UNMERGED) for name in tokens])
        # What users write has plain spaces; the marks for them stand only where text is cut.
        own = gguf.TokenType.USER_DEFINED
        tokens = [name.replace(MARK, " ") if kind == own else name for name, kind in zip(tokens, kinds, strict=True)]
    else:
        writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]])
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    _add_specials(writer, folder, tokenizer, {text: number for number, text in names.items()})
    template = folder / "chat_template.jinja"
    if template.is_file():
        writer.add_chat_template(template.read_text(encoding="utf-8"))


def is_sentencepiece(tokenizer: dict[str, Any]) -> bool:
    """Whether text is cut as by Gemma's SentencePiece: spaces are marked, none is added, unknown letters are bytes."""
    model, normal = tokenizer["model"], tokenizer.get("normalizer") or {}
    marks = normal.get("type") == "Replace" and normal.get("pattern") == {"String": " "} and normal["content"] == MARK
    plain = model["type"] == "BPE" and not model.get("ignore_merges")
    return bool(plain and model.get("byte_fallback") and marks)


def piece_scores(model: dict[str, Any], added: Set[str]) -> dict[str, float]:
    """The scores by which SentencePiece merges, from the merges that stand in their order.

    SentencePiece merges any two neighbours whose whole is a piece, the best score first. Merges of pairs do the same
    where all pairs of one piece stand together, and no pair is left out.

    Args:
        model: of a tokenizer.json.
        added: tokens that are found before text is cut.

    Raises:
        NesyLoraError: they do not, and llama.cpp would cut text otherwise.
    """
    scores: dict[str, float] = {}
    pairs: set[tuple[str, str]] = set()
    last = ""
    for pair in model["merges"]:
        left, right = pair.split(" ") if isinstance(pair, str) else pair
        whole = left + right
        if whole != last and whole in scores:
            raise NesyLoraError(f"the merges of this tokenizer are not SentencePiece's: {whole!r}. {WAY_OUT}")
        scores.setdefault(whole, -float(len(scores)))
        pairs.add((left, right))
        last = whole
    vocabulary = model["vocab"]
    for whole in vocabulary.keys() - added:
        for place in range(1, len(whole)):
            left, right = whole[:place], whole[place:]
            if left in vocabulary and right in vocabulary and (left, right) not in pairs:
                raise NesyLoraError(f"a merge of this tokenizer is missing: {left!r} with {right!r}. {WAY_OUT}")
    return scores


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
