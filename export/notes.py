"""What is to be known before a bundle is used: what an engine cannot take, and the way that works there."""

import json
from collections.abc import Mapping
from pathlib import Path

from export.manifest import Manifest
from tools.model.generation_config import HONOURED, NEUTRAL

VLLM_RANK = 16  # adapters of a higher rank are refused unless vLLM is told
RETRIEVAL = (
    "The prompt retrieves: each question was measured with the {k} train rows nearest to it as few-shot examples, and "
    "no template can look those up. Asked a bare question, the model sees the rest of the prompt only and answers "
    "worse than the numbers here. What works: `nesylora.load(BUNDLE).messages(question)` gives the whole messages, to "
    "be sent to any server of this bundle. Without NeSyLoRA: embed the questions of demos.jsonl with all-MiniLM-L6-v2, "
    "and show the nearest, nearest last, before the question."
)
NO_TEMPLATE = (
    "No chat template renders this prompt as it was measured: the template here is the model's own. Send the messages "
    "that `nesylora.load(BUNDLE).messages(question)` gives."
)
PLAIN = (
    "The base has no chat template; the one here writes the plain lines that were measured. The model has not learned "
    'where its turn ends: stop at "\\nUser:".'
)
DORA = (
    "The adapter uses DoRA, which vLLM refuses: serve the merged model there (`nesylora export --merged`). Read it by "
    "peft's `PeftModel`: transformers 5.23 by itself (`AutoModelForCausalLM.from_pretrained` of this folder, "
    "`pipeline`) leaves out its magnitudes, and answers otherwise."
)
COPIES = (
    "The adapter holds whole modules ({names}), which vLLM refuses: serve the merged model there (`nesylora export "
    "--merged`)."
)
RANK = "vLLM refuses adapters of a rank above 16 unless told: `--max-lora-rank {rank}`."
KIND = "vLLM, SGLang and llama.cpp take adapters of kind LORA only, not {kind}: serve the merged model there."
PENALTIES = (
    "Answers were measured with {names} of generation_config.json: `generate` applies them, servers only if they are "
    "asked to."
)
QLORA = "The run held its base in four bits; the merged model is in {dtype}, and may answer otherwise."
STARTED = (
    "The adapter goes on from one that the run was given: what that was trained on, and its licence, hold for this "
    "one, too."
)
BARE = "The best pair has no adapter: the prompt alone is the result, for the base as it is."


def notes(manifest: Manifest, bundle: Path, qlora: bool = False) -> tuple[str, ...]:
    """Sentences for the card.

    Args:
        bundle: its folder, with the adapter and the generation config.
        qlora: whether the run held its base in four bits.
    """
    found = [manifest.base.remark] if manifest.base.remark else []
    if not manifest.adapter:
        found.append(BARE)
    if manifest.retrieves:
        found.append(RETRIEVAL.format(k=manifest.retrieves))
    if not manifest.refined_template:
        found.append(NO_TEMPLATE)
    if manifest.stop:
        found.append(PLAIN)
    if manifest.started:
        found.append(STARTED)
    if manifest.adapter:
        found += _of_the_adapter(json.loads((bundle / "adapter_config.json").read_text(encoding="utf-8")))
    settings = json.loads((bundle / "generation_config.json").read_text(encoding="utf-8"))
    if kept := [name for name in HONOURED if settings.get(name) not in (None, NEUTRAL.get(name))]:
        found.append(PENALTIES.format(names=", ".join(kept)))
    if qlora and manifest.adapter:
        found.append(QLORA.format(dtype=manifest.base.dtype))
    return tuple(found)


def attaches(config: Mapping[str, object]) -> bool:
    """Whether vLLM takes an adapter of this adapter_config.json beside its base, not only merged into it."""
    return config.get("peft_type") == "LORA" and not (config.get("use_dora") or config.get("modules_to_save"))


def _of_the_adapter(config: dict[str, object]) -> list[str]:
    if config.get("peft_type") != "LORA":
        return [KIND.format(kind=config.get("peft_type"))]
    rank, copies = config.get("r"), config.get("modules_to_save")
    found = [DORA] if config.get("use_dora") else []
    if isinstance(copies, list) and copies:
        found.append(COPIES.format(names=", ".join(map(str, copies))))
    if isinstance(rank, int) and rank > VLLM_RANK:
        found.append(RANK.format(rank=rank))
    return found
