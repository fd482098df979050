"""TRL's SFTTrainer, tuned by its settings: completions only, one batch, nothing saved, logged or recomputed."""

import tempfile
from typing import Any

import datasets
import torch
from peft import get_peft_model
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from bench.cost.contenders.training import SEED, SETTINGS, Steps, warmup
from bench.cost.inputs import Loaded, Rows
from tools.training.lora_config import lora_config


def trl(loaded: Loaded, rows: Rows, steps: int, liger: bool = False) -> Steps:
    """The same LoRA, rows, optimizer and schedule as the others; all steps in one epoch, since each begins anew.

    Args:
        liger: with Liger's kernels for norms, rotations and gates; TRL computes the loss itself.
    """
    torch.manual_seed(SEED)
    model = get_peft_model(loaded.model, lora_config(SETTINGS.rank, SETTINGS))
    clock = _Clock(loaded)
    loaded.tokenizer.pad_token = loaded.tokenizer.pad_token or loaded.tokenizer.eos_token
    dataset = datasets.Dataset.from_list([
        {"input_ids": row.prompt + row.completion, "labels": [-100] * len(row.prompt) + row.completion}
        for row in rows.tokens
    ])  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        trainer = _Trainer(
            model, args=_settings(folder, loaded, len(rows.tokens), steps, liger), train_dataset=dataset.repeat(steps),
            processing_class=loaded.tokenizer, callbacks=[clock],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return Steps(clock.ends, float(trainer.loss))


def _settings(folder: str, loaded: Loaded, batch: int, steps: int, liger: bool) -> SFTConfig:
    on_cpu = loaded.model.device.type == "cpu"
    # Sequential: else a step would hold some rows twice. bf16 off: nobody else here runs under autocast; the model's
    # own type is the same for all.
    return SFTConfig(
        output_dir=folder, max_steps=steps, per_device_train_batch_size=batch, seed=SEED, max_length=None,
        learning_rate=SETTINGS.learning_rate, weight_decay=SETTINGS.weight_decay, max_grad_norm=SETTINGS.clip,
        lr_scheduler_type="linear", warmup_steps=warmup(steps), gradient_checkpointing=False,
        bf16=False, use_cpu=on_cpu, dataloader_pin_memory=not on_cpu, train_sampling_strategy="sequential",
        dataset_kwargs={"skip_prepare_dataset": True}, save_strategy="no", logging_strategy="no", report_to="none",
        disable_tqdm=True, use_liger_kernel=liger,
    )  # fmt: skip


class _Trainer(SFTTrainer):  # type: ignore[misc]  # trl has no types here
    """Keeps each step's loss without logging it."""

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        self.loss = loss
        return loss


class _Clock(TrainerCallback):
    def __init__(self, loaded: Loaded) -> None:
        self.ends: list[float] = []
        self._loaded = loaded

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(self._loaded.now())
