#!/usr/bin/env bash
# transformers 5.23.0, torch 2.13.0 (CPU): what demands in generate (or in generation_config) make of left padding.
# Expected: padding is masked, so a row's greedy answer in a left-padded batch is the answer of the row alone; since
#   repetition_penalty heeds the mask (it does here), the other demands do.
# Seen: they do not. min_length counts padding as text, so that it holds for the longest row only; with the usual
#   pad = end token, encoder_repetition_penalty takes the end for a word of the question, in padded rows only.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet 'torch==2.13.0' 'transformers==5.23.0'
HF_HUB_OFFLINE=1 venv/bin/python - <<'PY'
import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM, logging

logging.set_verbosity_error()
PROMPT = torch.tensor([[5, 9, 23, 40, 17]])
LONG = torch.arange(3, 23)[None]


def answers(model, end, **demands):
    """The row's greedy answer alone, and as the padded row of a batch of two; both without what follows the end."""
    demands |= {"do_sample": False, "max_new_tokens": 16, "eos_token_id": end, "pad_token_id": end}
    alone = model.generate(PROMPT, attention_mask=torch.ones_like(PROMPT), **demands)[0, PROMPT.shape[1] :].tolist()
    gap = LONG.shape[1] - PROMPT.shape[1]
    padded = torch.cat([torch.full((1, gap), end), PROMPT], 1)
    mask = torch.ones(2, LONG.shape[1], dtype=torch.long)
    mask[1, :gap] = 0
    both = model.generate(torch.cat([LONG, padded]), attention_mask=mask, **demands)[1, LONG.shape[1] :].tolist()
    return [said[: said.index(end)] if end in said else said for said in (alone, both)]


HEEDED, UNHEEDED = ("no demand", "repetition_penalty=1.2"), ("min_length=12", "encoder_repetition_penalty=1.2")
differ = dict.fromkeys(HEEDED + UNHEEDED, 0)
tried = 0
for seed in range(30):
    torch.manual_seed(seed)
    sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=64, bos_token_id=None, **sizes)).eval()
    model.lm_head.weight.data *= 8
    free = dict(do_sample=False, max_new_tokens=4, eos_token_id=None, pad_token_id=0)
    said = model.generate(PROMPT, attention_mask=torch.ones_like(PROMPT), **free)[0, PROMPT.shape[1] :].tolist()
    end = said[-1]  # a token that this model says fourth counts as its end token
    if end in said[:-1] or end in PROMPT or end in LONG:
        continue
    tried += 1
    for name in differ:
        key, _, value = name.partition("=")
        alone, batched = answers(model, end, **({key: float(value) if "." in value else int(value)} if value else {}))
        differ[name] += alone != batched
print(f"rows whose answer in a left-padded batch is not their answer alone, of {tried}: {differ}")
if not tried or any(differ[name] for name in HEEDED) or not all(differ[name] for name in UNHEEDED):
    sys.exit("no longer seen: these demands heed the mask, or repetition_penalty (or no demand at all) does not")
PY
