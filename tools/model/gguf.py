"""From a GGUF file to a folder of safetensors that transformers loads in a second."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

Told = Callable[[int, int, str], None]  # steps done, steps in all, what is next


def convert(weights: Path, into: Path, told: Told) -> None:
    """Write the model and its tokenizer, chat template included, as fp32 into a folder.

    Args:
        weights: the GGUF file.
        told: called before each step and at the end.
    """
    import torch
    import transformers

    with contextlib.redirect_stderr(io.StringIO()):  # transformers draws bars of its own; ours tell more
        told(0, 3, "vocabulary")
        tokenizer = transformers.AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
        told(1, 3, "weights")
        model = transformers.AutoModelForCausalLM.from_pretrained(
            weights.parent, gguf_file=weights.name, dtype=torch.float32
        )
        # The loaded weights are plain fp32 by now; with these marks left, save_pretrained would refuse.
        del model.config.quantization_config
        for mark, value in (("hf_quantizer", None), ("is_quantized", False)):
            setattr(model, mark, value)
        told(2, 3, "writing")
        model.save_pretrained(into)
        tokenizer.save_pretrained(into)
    told(3, 3, "done")
