"""Models of several parts, such as text and vision: sizes are those of the text part, and only that part is trained."""

import re
import sys
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

WINDOWS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length", "n_ctx")
BY_LENGTH = ("dynamic", "longrope")  # rotary position embeddings that depend on the longest row of a pass
ORIGINAL = "original_max_position_embeddings"
UNLIMITED = 10**9  # transformers gives tokenizers that know no limit a length far beyond this


def text_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """The configuration of the part that reads and writes text; the whole one for a model of text alone."""
    return config.get_text_config(decoder=True)


def window(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase | None) -> int:
    """Most tokens of a row, prompt and answer together.

    From the configuration, under any of its usual names; else the tokenizer's limit. Where neither names one:
    `sys.maxsize`.
    """
    text = text_config(config)
    named = next((size for name in WINDOWS if (size := getattr(text, name, None))), None)
    limit = getattr(tokenizer, "model_max_length", None)
    return int(named or (limit if limit and limit < UNLIMITED else sys.maxsize))


def rope_switch_length(config: PreTrainedConfig) -> int | None:
    """Tokens beyond which one row changes the rotary positions of all rows in its pass; None: it never does."""
    text = text_config(config)
    rope = getattr(text, "rope_parameters", None) or {}  # of the model, or of each kind of layer
    kinds = [kind for kind in (rope, *rope.values()) if isinstance(kind, dict) and kind.get("rope_type") in BY_LENGTH]
    default = getattr(text, ORIGINAL, None) or window(text, None)
    return min((int(kind.get(ORIGINAL) or default) for kind in kinds), default=None)


def text_only(model: PreTrainedModel, config: Any) -> Any:
    """A peft config restricted to the text part: adapters elsewhere would be made, and never trained.

    Args:
        config: a peft config; its `exclude_modules` is changed in place.
    """
    if text_config(model.config) is model.config:
        return config
    decoder = model.get_decoder()
    kept = [name for name, module in model.named_modules() if module in (decoder, model.get_output_embeddings())]
    others = rf"(?!(?:{'|'.join(map(re.escape, kept))})(?:\.|$)).*"
    excluded = config.exclude_modules
    if excluded and not isinstance(excluded, str):  # peft takes names in a list as endings
        excluded = rf"(?:.*\.)?(?:{'|'.join(map(re.escape, sorted(excluded)))})"
    config.exclude_modules = f"{others}|{excluded}" if excluded else others
    return config
