"""Models of several parts, such as text and vision: sizes are those of the text part, and only that part is trained."""

import re
import sys
from typing import Any

WINDOWS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length", "n_ctx")
TURNING = ("dynamic", "longrope")  # rotary positions that go by the longest row of a pass
ORIGINAL = "original_max_position_embeddings"
UNLIMITED = 10**9  # transformers gives tokenizers that know no limit a length far beyond this


def text_config(config: Any) -> Any:
    """The configuration of the part that reads and writes text; the whole, where that is all the model does."""
    return config.get_text_config(decoder=True)


def window(config: Any, tokenizer: Any) -> int:
    """Most tokens of a row, prompt and answer together.

    By the configuration, under any of its usual names; else the tokenizer's limit; without either, none is known.
    """
    text = text_config(config)
    named = next((size for name in WINDOWS if (size := getattr(text, name, None))), None)
    limit = getattr(tokenizer, "model_max_length", None)
    return int(named or (limit if limit and limit < UNLIMITED else sys.maxsize))


def rope_switch_length(config: Any) -> int | None:
    """The length beyond which a row's rotary positions turn those of all rows run with it; None: it never does."""
    text = text_config(config)
    given = getattr(text, "rope_parameters", None) or {}
    kinds = [each for each in (given, *given.values()) if isinstance(each, dict) and each.get("rope_type") in TURNING]
    own = getattr(text, ORIGINAL, None) or window(text, None)
    return min((int(each.get(ORIGINAL) or own) for each in kinds), default=None)


def text_only(model: Any, adapter: Any) -> Any:
    """A peft config that leaves all but the text part alone: adapters elsewhere would be made, and never trained."""
    if text_config(model.config) is model.config:
        return adapter
    decoder = model.get_decoder()
    kept = [name for name, module in model.named_modules() if module in (decoder, model.get_output_embeddings())]
    others = rf"(?!(?:{'|'.join(map(re.escape, kept))})(?:\.|$)).*"
    given = adapter.exclude_modules
    if given and not isinstance(given, str):  # peft takes names of a list as endings
        given = rf"(?:.*\.)?(?:{'|'.join(map(re.escape, sorted(given)))})"
    adapter.exclude_modules = f"{others}|{given}" if given else others
    return adapter
