"""A training step in a process whose memory runs out, and once more with all of it."""

import subprocess
import sys
from pathlib import Path

# What both devices' scripts begin with; given: the model's folder, and the device.
LEARNER = """
import sys
from pathlib import Path
import torch
from agent.config import Lora
from tools.backbone import Backbone
from tools.gradient import gradient
from tools.loading import load_model
from tools.lora_settings import lora_config
from tools.rendering import TokenRow
from tools.room import Room

torch.set_num_threads(1)
model, tokenizer = load_model(sys.argv[1], device=sys.argv[2], dtype="float32", progress=lambda *_: None)
backbone = Backbone(model, tokenizer, name="m", locate=Path)
backbone.create("new", lora_config(4, Lora(rank=4)))
model.train()
rows = [TokenRow([50 + row, *range(10, 300)] * 2, [60] * 20) for row in range(32)]
weights = [weight for weight in backbone.model.parameters() if weight.requires_grad]

def step():
    room = Room(10**9)
    loss, tokens = gradient(backbone, [rows], room)
    print(loss, sum(float(weight.grad.square().sum()) for weight in weights), room.tokens)
    for weight in weights:
        weight.grad = None

"""


def starved_and_fed(script: str, model: Path, device: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Loss, squared gradient and tokens of a pass, of the two steps that the script takes after `LEARNER`."""
    command = [sys.executable, "-c", LEARNER + script, str(model), device]
    answer = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    starved, fed = (tuple(map(float, line.split())) for line in answer.stdout.splitlines())
    return starved, fed
