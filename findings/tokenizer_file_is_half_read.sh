#!/usr/bin/env bash
# onnxruntime-extensions 0.15.2, tokenizers 0.23.3: the ids of a text by one tokenizer.json.
# Expected: the same ids as by `tokenizers`, or an error about what is not supported.
# Seen: of a byte-level BPE, vocabulary, merges and patterns of `Split` are read. The normalizer, `add_prefix_space` and
#   `use_regex` are passed over: the ids are valid, and not those that the model was trained with. With the three patterns of
#   DeepSeek V3, most of the text is lost. Nothing is raised. (operators/tokenizer/bpe_tokenizer_model.hpp, `LoadPreTokenizer`:
#   it knows the other kinds by name, and reads nothing of them. onnxruntime-genai 0.18.0 has these tokenizers built in: there
#   DeepSeek's patterns lose nothing but cut otherwise, and the rest is the same.)
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --no-compile 'onnxruntime-extensions==0.15.2' 'tokenizers==0.23.3' 'numpy==2.4.6'
cat >ids.py <<'PY'
import json
import os
import sys

from onnxruntime_extensions import pp_api
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TEXTS = ["Hello there, world", "In 1998 it's foo(bar)[1];"]
CORPUS = ["Hello there, world! In 1998 it's 1998 people; foo(bar)[1]; hello world", "there it's, hello (bar) World's end"] * 9


def splits(*patterns):
    cut = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    return pre_tokenizers.Sequence([*cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",)
DEEPSEEK3 = (
    r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
)
PLAIN = pre_tokenizers.ByteLevel(add_prefix_space=False)
WAYS = {
    "GPT-2": (PLAIN, None),
    "Llama 3": (splits(*LLAMA3), None),
    "DeepSeek V3": (splits(*DEEPSEEK3), None),
    "add_prefix_space": (pre_tokenizers.ByteLevel(add_prefix_space=True), None),
    "use_regex=False": (pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), None),
    "lower case": (PLAIN, normalizers.Lowercase()),
}
alike = {}
for name, (cut, normalizer) in WAYS.items():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = cut, decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False))
    os.makedirs(name)
    tokenizer.save(f"{name}/tokenizer.json")
    with open(f"{name}/tokenizer_config.json", "w") as file:
        json.dump({"tokenizer_class": "PreTrainedTokenizerFast"}, file)
    theirs = pp_api.Tokenizer(name)
    alike[name] = True
    for text in TEXTS:
        wanted, got = tokenizer.encode(text).tokens, [tokenizer.id_to_token(int(one)) for one in theirs.tokenize(text)]
        alike[name] &= wanted == got
        print(f"{name}: {'alike' if wanted == got else f'{wanted} by tokenizers, {got} here'}")
if alike != {name: name in ("GPT-2", "Llama 3") for name in WAYS}:
    sys.exit("no longer seen: the file is read as tokenizers reads it, or not even GPT-2's and Llama 3's way is")
PY
venv/bin/python ids.py
