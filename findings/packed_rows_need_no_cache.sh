#!/usr/bin/env bash
# transformers 5.23.0, torch 2.13.0 (CPU, sdpa): rows packed into one sequence by position_ids that begin again at 0.
# Expected: transformers tells such rows apart (it does, and masks them from each other); use_cache is about generating.
# Seen: it does so only without a cache, and a plain forward makes one, in training mode too. Then every row silently
#   sees those packed before it: the loss is another one, nothing is said. use_cache=False brings the rows apart.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet 'torch==2.13.0' 'transformers==5.23.0'
HF_HUB_OFFLINE=1 venv/bin/python - <<'PY'
import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
model = LlamaForCausalLM(LlamaConfig(vocab_size=64, **sizes)).train()
first, second = torch.randint(3, 64, (2, 1, 12))
packed = torch.cat([first, second], 1)
places = torch.arange(12).repeat(2)[None]
labels = packed.clone()
labels[:, :13] = -100  # only the second row is scored: its loss must be that of the row alone


def loss(**given):
    with torch.no_grad():
        return model(**given).loss.item()


alone = loss(input_ids=second, labels=second)
plain = loss(input_ids=packed, position_ids=places, labels=labels)
apart = loss(input_ids=packed, position_ids=places, labels=labels, use_cache=False)
print(f"loss of a row alone {alone:.6f}; packed behind another {plain:.6f}; the same with use_cache=False {apart:.6f}")
if abs(plain - alone) < 1e-4 or abs(apart - alone) > 1e-5:
    sys.exit("no longer seen: packed rows are told apart with a cache too, or not even without one")
PY
