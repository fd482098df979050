#!/usr/bin/env bash
# peft 0.21.2, transformers 5.23.0, torch 2.13.0 (CPU): the base after `unload()`, with modules_to_save.
# Expected: `unload()` gives the base back as it was, which `disable_adapter()` shows to be still there.
# Seen: with modules_to_save the "base" that comes back holds the adapter's trained copy in the place of its own layer.
#   What is measured or trained on it next starts from a base that nobody has. (LoRA layers are taken off properly.)
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet 'torch==2.13.0' 'transformers==5.23.0' 'peft==0.21.2'
HF_HUB_OFFLINE=1 venv/bin/python - <<'PY'
import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

IDS = torch.arange(3, 15)[None]
SIZES = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)


def distances(modules_to_save):
    """How far the logits are from the base's: with the adapter switched off, and after `unload()`."""
    torch.manual_seed(0)
    base = LlamaForCausalLM(LlamaConfig(vocab_size=64, **SIZES)).eval()
    with torch.no_grad():
        before = base(IDS).logits
    model = get_peft_model(base, LoraConfig(target_modules=["q_proj"], modules_to_save=modules_to_save))
    step = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=1.0)
    model(input_ids=IDS, labels=IDS).loss.backward()
    step.step()
    with torch.no_grad():
        with model.disable_adapter():
            off = (model(input_ids=IDS).logits - before).abs().max().item()
        return off, (model.unload()(IDS).logits - before).abs().max().item()


lora, both = distances(None), distances(["lm_head"])
print(f"LoRA alone: switched off {lora[0]:.4f}, unloaded {lora[1]:.4f} away from the base")
print(f"with modules_to_save: switched off {both[0]:.4f}, unloaded {both[1]:.4f} away from the base")
if max(*lora, both[0]) > 1e-6 or both[1] < 1e-3:
    sys.exit("no longer seen: unload() gives the base back with modules_to_save too, or not even without")
PY
