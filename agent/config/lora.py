"""`lora:` in a task.yaml: how adapters are made and trained."""

from typing import Any

from pydantic import Field

from agent.config.base import Settings
from agent.records.actions import Replay


class Lora(Settings):
    """How adapters are made. `options` go to peft's LoraConfig; agent.config.lora_options lists the allowed ones."""

    rank: int = Field(16, ge=1, le=256, description="of the LoRA matrices")
    alpha: float = Field(32, gt=0, description="scale: the update counts alpha / rank times")
    targets: str | tuple[str, ...] = Field("all-linear", description="modules that get an adapter, as in peft")
    dropout: float = Field(0.0, ge=0, lt=1, description="of the adapter's input, in training")
    rslora: bool = Field(False, description="scale by alpha / sqrt(rank) instead")
    dora: bool = Field(False, description="DoRA: direction and magnitude apart")
    qlora: bool = Field(False, description="load the base in 4 bit; needs bitsandbytes and CUDA")
    options: dict[str, Any] = Field(default_factory=dict, description="more of peft's LoraConfig")
    epochs: int = Field(3, ge=1, le=20, description="of one LoRA round; the policy may ask for fewer or more")
    enough: float = Field(
        0.005, ge=0, le=10, description="nats per token; an epoch below ends the round: the rows are learned"
    )
    learning_rate: float = Field(1e-3, ge=1e-6, le=1e-2, description="AdamW's peak")
    replay: Replay = 0.25
    kl: float = Field(1.0, gt=0, le=100, description="weight of KL(base || adapted) on general rows beside the loss")
    batch_size: int = Field(8, ge=1, description="rows of one forward pass")
    accumulate: int = Field(1, ge=1, description="batches of one optimizer step")
    warmup: float = Field(0.1, ge=0, le=1, description="share of all steps")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's, of the adapter")
    clip: float = Field(1.0, gt=0, description="largest gradient norm of a step")
    checkpointing: bool = Field(
        False, description="recompute activations: less memory, a third slower; set by itself where memory runs out"
    )
    checkpoint_seconds: float = Field(
        60.0, ge=0, description="between checkpoints of a training, from which `resume` goes on with it; 0: none"
    )
    max_tokens: int = Field(2048, ge=16, description="longest row; longer ones are left out and counted")
