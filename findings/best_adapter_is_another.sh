#!/usr/bin/env bash
# transformers 5.23.0, peft 0.21.2, torch 2.13.0 (CPU): a second adapter, "task", is trained by `Trainer` over a model that has one
#   already (`PeftModel.from_pretrained` calls it "default"), with `load_best_model_at_end=True`.
# Expected: after training, "task" has the weights of the checkpoint with the lowest validation loss.
# Seen: it has the weights of "default". Checkpoints hold "default" in their own folder and "task" in a folder of that name, as
#   peft's `save_pretrained` lays them; the best one is read from the checkpoint's own folder under the name of the active
#   adapter (transformers/trainer.py, `_load_best_model`; `_load_from_checkpoint`, for resuming, knows of the folders). What was
#   trained is gone from memory and what is saved next is the other adapter; `best_metric` is that of the lost one, and nothing
#   is logged. Where ranks differ, it is an error instead. (A single adapter that has another name than "default" is not read at
#   all: the last weights stay, and the log asks for `save_on_each_node`.)
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --no-compile 'torch==2.13.0' 'transformers==5.23.0' 'peft==0.21.2' 'accelerate==1.15.0'
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 venv/bin/python - <<'PY'
import logging
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback, Trainer, TrainingArguments

SIZES = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
LORA = LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
IDS = torch.randint(0, 64, (16, 12), generator=torch.Generator().manual_seed(0))
ROWS = [{"input_ids": row, "labels": row} for row in IDS]
warned = []
handler = logging.Handler(logging.WARNING)
handler.emit = lambda record: warned.append(record.getMessage())
logging.getLogger("transformers.trainer").addHandler(handler)


def base():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, **SIZES))


def trainer(model, out, **options):
    torch.manual_seed(1)
    return Trainer(
        model, TrainingArguments(
            out, per_device_train_batch_size=4, max_steps=20, eval_strategy="steps", eval_steps=10, save_steps=10, learning_rate=0.02,
            use_cpu=True, report_to=[], disable_tqdm=True, logging_strategy="no", log_level="warning", **options,
        ), train_dataset=ROWS, eval_dataset=ROWS,
    )


def outcome(name, first):
    """The best loss that was seen, the loss after training, and whether the weights are those of the first adapter.

    Args:
        name: of the adapter that is trained.
        first: whether there is another one, "default", before it.
    """
    model = PeftModel.from_pretrained(base(), "earlier") if first else get_peft_model(base(), LORA, adapter_name=name)
    if first:
        model.add_adapter(name, LORA)
        model.set_adapter(name)
    run = trainer(model, f"{name}-{first}", load_best_model_at_end=True)
    run.remove_callback(PrinterCallback)
    run.train()
    mine = get_peft_model_state_dict(model, adapter_name=name)
    other = get_peft_model_state_dict(model, adapter_name="default") if first else {}
    swapped = bool(other) and all(torch.equal(mine[key], other[key]) for key in mine)
    return run.state.best_metric, run.evaluate()["eval_loss"], swapped


earlier = get_peft_model(base(), LORA)
for parameter in earlier.parameters():
    if parameter.requires_grad:
        parameter.data.normal_(std=0.05, generator=torch.Generator().manual_seed(2))
earlier.save_pretrained("earlier")
alone = outcome("default", first=False)
both = outcome("task", first=True)
print(f"'default' alone: best loss {alone[0]:.4f}, after training {alone[1]:.4f}")
print(f"'task' beside 'default': best loss {both[0]:.4f}, after training {both[1]:.4f}, weights of 'default': {both[2]}; "
      f"warnings of the trainer: {len(warned)}")
if abs(alone[0] - alone[1]) > 1e-4 or not both[2] or warned:
    sys.exit("no longer seen: the best adapter is read back, or something is said, or not even a single one is")
PY
