"""What an engine reads beside weights: the tokenizer with its template, and how to generate."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memory.storage.disk import write_atomically

if TYPE_CHECKING:
    from tools.model.chat_template import Renderer


def save_tokenizer(render: "Renderer", template: str | None, into: Path) -> None:
    """Write the tokenizer as it works, which may differ from the files that it was read from.

    Args:
        template: the chat template to go with it; None: its own.
    """
    tokenizer: Any = render.tokenizer
    own = tokenizer.chat_template
    try:
        tokenizer.chat_template = template if template is not None else own
        tokenizer.save_pretrained(into)
    finally:
        tokenizer.chat_template = own
    settings = json.loads((into / "tokenizer_config.json").read_text(encoding="utf-8"))
    for mark in ("is_local", "local_files_only"):  # of this machine
        settings.pop(mark, None)
    write_atomically(into / "tokenizer_config.json", json.dumps(settings, indent=2, ensure_ascii=False))


def tokenizer_files(folder: Path) -> Sequence[str]:
    """Those files of a tokenizer that are there."""
    names = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
    return [name for name in names if (folder / name).is_file()]


def save_generation_config(render: "Renderer", source: Path, new: int, into: Path) -> None:
    """Write what `generate` needs to answer as measured: greedy, ending where the run ended answers.

    Args:
        source: the base's folder.
        new: most tokens of an answer.
    """
    from transformers import GenerationConfig

    from tools.model.generation_config import HONOURED

    own = GenerationConfig.from_pretrained(source) if (source / "generation_config.json").is_file() else None
    kept = {name: value for name in HONOURED if (value := getattr(own, name, None)) is not None}
    named = getattr(own, "eos_token_id", None)
    ends = {render.end, *(named if isinstance(named, list) else [named])} - {None}
    tokenizer = render.tokenizer
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else render.end
    GenerationConfig(
        do_sample=False, max_new_tokens=new, eos_token_id=sorted(ends), bos_token_id=tokenizer.bos_token_id,
        pad_token_id=pad, **kept,
    ).save_pretrained(into)  # fmt: skip
