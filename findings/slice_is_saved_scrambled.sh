#!/usr/bin/env bash
# safetensors 0.8.0, numpy 2.4.6: a difference of weights is put into two LoRA matrices by a singular value decomposition, which
#   are slices and transposes of its parts, and saved by `safetensors.numpy.save_file`.
# Expected: what is loaded is what was saved; or an error, as `safetensors.torch.save_file` raises on the same slices.
# Seen: an array that does not lie row by row in memory is written as its memory lies, under its own shape: `load_file` gives the
#   right names, shapes and types with other numbers. 0.7.0 wrote it properly. (safetensors/numpy.py, `_flatten` hands on
#   `tensor.ctypes.data`; safetensors issue 825, open in November 2026.)
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
"${PYTHON:-python3}" -m venv venv
cat >factors.py <<'PY'
import numpy
import safetensors
from safetensors.numpy import load_file, save_file

RANK = 2
generator = numpy.random.default_rng(0)
delta = generator.normal(size=(6, RANK)) @ generator.normal(size=(RANK, 5))  # of rank 2: two matrices hold it wholly
left, sizes, right = numpy.linalg.svd(delta, full_matrices=False)
factors = {"lora_B": left[:, :RANK], "lora_A": (right.T[:, :RANK] * sizes[:RANK]).T}
assert numpy.allclose(factors["lora_B"] @ factors["lora_A"], delta)


def error(tensors):
    """How far the weights are from `delta` after saving and loading, as a share of its length."""
    save_file(tensors, "adapter.safetensors")
    read = load_file("adapter.safetensors")
    return numpy.linalg.norm(read["lora_B"] @ read["lora_A"] - delta) / numpy.linalg.norm(delta)


as_they_are = error(factors)
in_rows = error({name: numpy.ascontiguousarray(array) for name, array in factors.items()})
print(f"safetensors {safetensors.__version__}: error {as_they_are:.2f} of slices, {in_rows:.2f} by ascontiguousarray")
assert in_rows < 1e-9
raise SystemExit(3 if as_they_are > 0.1 else 0)
PY
tries=""
for version in 0.7.0 0.8.0; do
    venv/bin/pip install --quiet --no-compile "safetensors==$version" 'numpy==2.4.6'
    result=0
    venv/bin/python factors.py || result=$?
    tries="$tries$result"
done
if [ "$tries" != 03 ]; then
    echo "no longer seen: slices are saved as they are in 0.8.0, or not even in 0.7.0" >&2
    exit 1
fi
