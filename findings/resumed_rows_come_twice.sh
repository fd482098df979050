#!/usr/bin/env bash
# transformers 5.23.0, accelerate 1.15.0, torch 2.13.0 (CPU): `Trainer.train(resume_from_checkpoint=...)` in the second epoch, with
#   `train_sampling_strategy="group_by_length"` (`group_by_length=True` in transformers 4).
# Expected: the rest of the epoch's rows, as without it: there, a resumed run goes on to the row as if it had never stopped.
# Seen: the order of the epoch is drawn anew, and as many batches of the new order are passed over: some rows come twice in that
#   epoch and as many never. In the first epoch all is well, so a try of a few steps shows nothing. Nothing is logged. The sampler
#   has no generator of its own and draws from that of torch, which stands elsewhere after a new start; only the random sampler
#   was made seedable (accelerate/data_loader.py, `SeedableRandomSampler`; transformers/trainer.py, `_get_train_sampler`).
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --no-compile 'torch==2.13.0' 'transformers==5.23.0' 'accelerate==1.15.0'
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 venv/bin/python - <<'PY'
import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback, Trainer, TrainingArguments
from transformers.utils import logging

logging.disable_progress_bar()
COUNT, BATCH, EPOCHS = 24, 2, 2
STEPS = COUNT // BATCH
SIZES = dict(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
ROWS = [{"input_ids": [3 + row] * (4 + row % 5), "labels": [3 + row] * (4 + row % 5)} for row in range(COUNT)]


def pad(rows):
    longest = max(len(row["input_ids"]) for row in rows)
    return {
        "input_ids": torch.tensor([row["input_ids"] + [0] * (longest - len(row["input_ids"])) for row in rows]),
        "labels": torch.tensor([row["labels"] + [-100] * (longest - len(row["labels"])) for row in rows]),
    }


class Recorded(Trainer):
    """Keeps which rows it trains on."""

    def training_step(self, model, inputs, *rest, **options):
        self.rows += (inputs["input_ids"][:, 0] - 3).tolist()
        return super().training_step(model, inputs, *rest, **options)


def trained(strategy, start=None):
    """The rows in the order in which they are trained on, from a checkpoint's step or from the beginning."""
    torch.manual_seed(0)
    trainer = Recorded(
        LlamaForCausalLM(LlamaConfig(**SIZES)), TrainingArguments(
            strategy, per_device_train_batch_size=BATCH, num_train_epochs=EPOCHS, save_steps=1, train_sampling_strategy=strategy,
            use_cpu=True, report_to=[], disable_tqdm=True, logging_strategy="no",
        ), train_dataset=ROWS, data_collator=pad,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.rows = []
    trainer.train(resume_from_checkpoint=f"{strategy}/checkpoint-{start}" if start else None)
    return trainer.rows


twice = {}
for strategy in ("random", "group_by_length"):
    whole = trained(strategy)
    for start in (STEPS // 2, STEPS + STEPS // 2):
        epoch = start // STEPS * STEPS * BATCH  # where the epoch begins that is resumed
        rows = (whole[: start * BATCH] + trained(strategy, start))[epoch : epoch + COUNT]
        twice[strategy, start] = COUNT - len(set(rows))
        print(f"{strategy}, resumed at step {start} of {EPOCHS * STEPS}: of {COUNT} rows, {twice[strategy, start]} come twice in "
              f"that epoch and {len(set(range(COUNT)) - set(rows))} never")
*well, seen = twice.values()
if any(well) or not seen:
    sys.exit("no longer seen: grouped rows come once after resuming, too, or not even random ones do")
PY
