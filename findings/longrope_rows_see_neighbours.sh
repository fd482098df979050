#!/usr/bin/env bash
# transformers 5.23.0, torch 2.13.0 (CPU): RoPE of kind "longrope" (as Phi-3.5 and Phi-4-mini have it) or "dynamic".
# Expected: rows of a batch do not know one another, and a cache changes the speed of `generate`, not its answer.
# Seen: the longest row of the batch chooses the rotation of all. Beside one row past the original window a short row's
#   logits are others; and greedy answers that cross the window are others with a cache (its keys keep the old rotation)
#   than without. Fixed kinds (yarn, llama3, linear) do neither.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet 'torch==2.13.0' 'transformers==5.23.0'
HF_HUB_OFFLINE=1 venv/bin/python - <<'PY'
import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM, logging

logging.set_verbosity_error()
WINDOW = 64
BASE = {"rope_theta": 10000.0, "factor": 4.0}
KINDS = {
    "yarn": BASE | {"original_max_position_embeddings": WINDOW},
    "dynamic": BASE,
    "longrope": BASE | {
        "original_max_position_embeddings": WINDOW, "short_factor": [1.0] * 4, "long_factor": [1.0, 1.5, 3.0, 6.0],
    },
}  # fmt: skip
seen = {}
for kind, rope in KINDS.items():
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
    window = WINDOW if kind == "dynamic" else 4 * WINDOW
    rope = {"rope_type": kind} | rope
    config = LlamaConfig(vocab_size=64, max_position_embeddings=window, rope_parameters=rope, **sizes)
    model = LlamaForCausalLM(config).eval()
    for weight in model.parameters():
        weight.data *= 5 if weight.dim() == 2 else 1
    short, long, near = (torch.randint(3, 64, (1, length)) for length in (20, 100, 60))
    rows = torch.cat([torch.cat([short, torch.zeros(1, 80, dtype=torch.long)], 1), long])
    mask = torch.ones_like(rows)
    mask[0, 20:] = 0
    with torch.no_grad():
        moved = (model(rows, attention_mask=mask).logits[0, :20] - model(short).logits[0]).abs().max().item()
    said = [
        model.generate(near, do_sample=False, max_new_tokens=30, eos_token_id=None, pad_token_id=0, use_cache=cache)
        for cache in (True, False)
    ]
    seen[kind] = (moved > 1e-3, not torch.equal(*said))
    print(f"{kind}: a short row's logits beside a long one moved by {moved:.5f};", end=" ")
    print("a cache changes answers:", seen[kind][1])
if seen != {"yarn": (False, False), "dynamic": (True, True), "longrope": (True, True)}:
    sys.exit("no longer seen: neighbours or the cache change nothing, or change fixed kinds too")
PY
