#!/usr/bin/env bash
# transformers 5.23.0, peft 0.21.2, torch 2.13.0 (CPU): a trained DoRA adapter that is read by transformers itself, as
#   `AutoModelForCausalLM.from_pretrained(ADAPTER)`, `pipeline(model=ADAPTER)` and `model.load_adapter(ADAPTER)` do.
# Expected: the same logits as through `PeftModel.from_pretrained`, as with plain LoRA.
# Seen: the trained magnitudes are left out, and each is made anew from the base's weights. Only a table is logged, "MISSING ...
#   newly initialized". What `save_pretrained` writes of such a model has lost them for good. The cause: peft's file names them
#   `lora_magnitude_vector`, which transformers renames to `lora_magnitude_vector.default` while the module's is
#   `lora_magnitude_vector.default.weight` (peft/utils/transformers_weight_conversion.py, `build_peft_weight_mapping`).
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --no-compile 'torch==2.13.0' 'transformers==5.23.0' 'peft==0.21.2'
HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 OMP_NUM_THREADS=1 venv/bin/python - <<'PY'
import sys

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
IDS = torch.arange(3, 15)[None]
SIZES = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
torch.manual_seed(0)
LlamaForCausalLM(LlamaConfig(vocab_size=64, **SIZES)).save_pretrained("base")


@torch.no_grad()
def logits(model):
    return model.eval()(input_ids=IDS).logits


def distances(name, **options):
    """How far the trained logits are from: the base's, PeftModel's, transformers' own, and those after saving again."""
    base = AutoModelForCausalLM.from_pretrained("base")
    before = logits(base)
    model = get_peft_model(base, LoraConfig(r=4, **options)).train()
    step = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], lr=0.01)
    for _ in range(30):
        model(input_ids=IDS, labels=IDS).loss.backward()
        step.step()
        step.zero_grad()
    trained = logits(model)
    model.save_pretrained(name)
    by_peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("base"), name)
    by_transformers = AutoModelForCausalLM.from_pretrained(name)
    by_transformers.save_pretrained(f"{name}-again")
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("base"), f"{name}-again")
    found = [(logits(one) - trained).abs().max().item() for one in (by_peft, by_transformers, again)]
    print(f"{name}: base {(before - trained).abs().max().item():.4f} away, PeftModel {found[0]:.4f}, "
          f"AutoModelForCausalLM {found[1]:.4f}, PeftModel after saving that again {found[2]:.4f}")
    return found


plain = distances("lora", target_modules=["q_proj", "v_proj"])
some = distances("dora", target_modules=["q_proj", "v_proj"], use_dora=True)
all_ = distances("dora-all-linear", target_modules="all-linear", use_dora=True)
if max(*plain, some[0], all_[0]) > 1e-4 or min(*some[1:], *all_[1:]) < 1e-3:
    sys.exit("no longer seen: transformers reads the magnitudes of DoRA, or not even plain LoRA")
PY
