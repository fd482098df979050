#!/usr/bin/env bash
# torch 2.13.0 (CPU, gloo): a model is divided by FSDP2 (fully_shard), answers once under no_grad, and is then frozen, as
#   peft freezes a base before it adds an adapter.
# Expected: weights that were frozen stay frozen: none gets a gradient.
# Seen: after that pass the root keeps its own weights whole, so `parameters()` gave those, and freezing them missed the
#   divided ones: after the next backward they are there again, trainable, and get gradients; nothing is said. The
#   layers that are divided by themselves stay frozen, and so does everything where no pass went before.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet 'torch==2.13.0'
cat >freeze.py <<'PY'
import sys

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

distributed.init_process_group("gloo")
mesh = init_device_mesh("cpu", (distributed.get_world_size(),))


def trainable(passed_before: bool) -> list[str]:
    """Names of the weights that have a gradient after two backward passes of a frozen model."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    fully_shard(model[0], mesh=mesh)
    fully_shard(model, mesh=mesh)
    if passed_before:
        with torch.no_grad():
            model(torch.ones(1, 4))
    for weight in model.parameters():
        weight.requires_grad_(False)
    for _ in range(2):
        model(torch.ones(1, 4, requires_grad=True)).sum().backward()
    return [name for name, weight in model.named_parameters() if weight.grad is not None]


fresh, after_pass = trainable(False), trainable(True)
distributed.barrier()
if distributed.get_rank() == 0:
    print(f"with a gradient though frozen: {fresh or 'none'}; frozen after a pass: {after_pass or 'none'}")
    if fresh or after_pass != ["1.weight", "1.bias"]:
        sys.exit("no longer seen: freezing after a pass holds, or does not hold without one")
PY
OMP_NUM_THREADS=1 venv/bin/torchrun --nproc-per-node 2 freeze.py
