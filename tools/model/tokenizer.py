"""Reading a model's tokenizer as its own file has it."""

import transformers
from transformers.utils.hub import cached_file

PROBE = "In 2023:  it's 3.5 × 7 = 24.5,\n\tor 650841823 — Grüße, 東京!"  # digits, spaces, signs and scripts


def load_tokenizer(source: str) -> transformers.PreTrainedTokenizerBase:
    """The tokenizer of a hub name or local folder. No remote code.

    transformers builds some classes anew from vocabulary and merges alone (Qwen2Tokenizer, LlamaTokenizer of version 5)
    and drops how tokenizer.json cuts text: other ids than the model was trained with, without a word. Where the two
    disagree, the file counts.

    Raises:
        OSError, ValueError: it cannot be found or read.
    """
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    if cached_file(source, "tokenizer.json", _raise_exceptions_for_missing_entries=False) is None:
        return tokenizer
    as_in_file = transformers.PreTrainedTokenizerFast.from_pretrained(source)
    return tokenizer if _reads(tokenizer) == _reads(as_in_file) else as_in_file


def _reads(tokenizer: transformers.PreTrainedTokenizerBase) -> tuple[list[int], str]:
    """The probe's ids, and the text that they come back as."""
    ids = tokenizer.encode(PROBE, add_special_tokens=False)
    return ids, str(tokenizer.decode(ids))
