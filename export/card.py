"""The bundle's README.md: a model card with the hub's metadata, written from its manifest."""

from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from agent.records.examples import Prompt
from export.manifest import Manifest

METRIC = "joint reward (content × style)"
TASK = "text-generation"
LIBRARY = {True: "peft", False: "transformers"}
RELATION = {True: "adapter", False: "finetune"}


def card(manifest: Manifest, prompt: Prompt) -> str:
    """The text of the card."""
    text = (
        _templates()
        .get_template("card.md.j2")
        .render(manifest=manifest, prompt=prompt, base=manifest.base, fence=_fence(prompt))
    )
    return f"---\n{card_data(manifest).to_yaml()}\n---\n\n{text}"


def merged_card(manifest: Manifest) -> str:
    """The card of the merged model, which may be uploaded by itself."""
    data = card_data(manifest, "transformers", "merge" if manifest.adapter else "finetune")
    return f"---\n{data.to_yaml()}\n---\n\n# {manifest.name}, merged\n\nSee the card of the bundle, ../README.md.\n"


def card_data(manifest: Manifest, library: str = "", relation: str = "") -> ModelCardData:
    """The metadata block, as the hub reads it.

    Args:
        library, relation: of other files than the bundle's own.
    """
    known: dict[str, Any] = {}
    if manifest.base.hub:
        known |= {"base_model": manifest.base.hub, "base_model_relation": relation or RELATION[manifest.adapter]}
    if manifest.base.license:
        known["license"] = manifest.base.license
    if manifest.dataset:
        known["datasets"] = [manifest.dataset]
    return ModelCardData(
        library_name=library or LIBRARY[manifest.adapter],
        pipeline_tag="text-generation",
        tags=["nesylora", *(["lora"] if manifest.kind == "LORA" else [])],
        model_name=manifest.name,
        eval_results=_results(manifest),
        **known,
    )


def _results(manifest: Manifest) -> list[EvalResult]:
    task, test = manifest.task, manifest.test
    rewards: dict[str, Any] = {"metric_type": "reward", "metric_name": METRIC}
    found = [
        EvalResult(TASK, task, task, metric_value=round(manifest.validation, 4), dataset_split="validation", **rewards)
    ]
    if test:
        width = {"low": round(test.low, 4), "high": round(test.high, 4), "rows": test.rows}
        reward = round(test.reward, 4)
        kept = EvalResult(TASK, task, task, metric_value=reward, dataset_split="test", metric_args=width, **rewards)
        found.insert(0, kept)
    if manifest.drift is not None:
        name = "drift (nats per token)"
        drift = round(manifest.drift, 4)
        found.append(EvalResult(TASK, "general", "general text", "drift", drift, metric_name=name))
    return found


def _fence(prompt: Prompt) -> str:
    """A fence that no text of the prompt closes."""
    text, fence = prompt.model_dump_json(), "```"
    while fence in text:
        fence += "`"
    return fence


@cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
