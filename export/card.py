"""The bundle's README.md: a model card with the hub's metadata, written from its manifest."""

from functools import cache
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from agent.records.examples import Prompt
from export.manifest import Manifest

METRIC = "joint reward (content × style)"
LIBRARY = {True: "peft", False: "transformers"}
RELATION = {True: "adapter", False: "finetune"}


def card(manifest: Manifest, prompt: Prompt) -> str:
    """The text of the card."""
    text = _templates().get_template("card.md.j2").render(
        manifest=manifest, prompt=prompt, base=manifest.base, fence=_fence(prompt)
    )
    return f"---\n{card_data(manifest).to_yaml()}\n---\n\n{text}"


def card_data(manifest: Manifest) -> ModelCardData:
    """The metadata block, as the hub reads it."""
    known: dict[str, object] = {}
    if manifest.base.hub:
        known |= {"base_model": manifest.base.hub, "base_model_relation": RELATION[manifest.adapter]}
    if manifest.base.license:
        known["license"] = manifest.base.license
    if manifest.dataset:
        known["datasets"] = [manifest.dataset]
    return ModelCardData(
        library_name=LIBRARY[manifest.adapter],
        pipeline_tag="text-generation",
        tags=["nesylora", *(["lora"] if manifest.kind == "LORA" else [])],
        model_name=manifest.name,
        eval_results=_results(manifest),
        **known,  # type: ignore[arg-type]
    )


def merged_card_data(manifest: Manifest) -> ModelCardData:
    """The same of the merged model alone: a model by itself, merged from its base and the adapter."""
    data = card_data(manifest)
    data.library_name = "transformers"
    data.base_model_relation = "merge" if manifest.adapter else "finetune"
    return data


def _results(manifest: Manifest) -> list[EvalResult] | None:
    measured = [("test", manifest.test.reward, manifest.test)] if manifest.test else []
    kept = [
        EvalResult(
            task_type="text-generation", dataset_type=manifest.task, dataset_name=manifest.task, dataset_split=split,
            metric_type="reward", metric_name=METRIC, metric_value=round(reward, 4),
            metric_args={"low": round(result.low, 4), "high": round(result.high, 4), "rows": result.rows},
        )
        for split, reward, result in measured
    ]  # fmt: skip
    kept.append(
        EvalResult(
            task_type="text-generation", dataset_type=manifest.task, dataset_name=manifest.task,
            dataset_split="validation", metric_type="reward", metric_name=METRIC,
            metric_value=round(manifest.validation, 4),
        )  # fmt: skip
    )
    if manifest.drift is not None:
        kept.append(
            EvalResult(
                task_type="text-generation", dataset_type="nesylora-general", dataset_name="general text",
                metric_type="drift", metric_name="drift (nats per token)", metric_value=round(manifest.drift, 4),
            )  # fmt: skip
        )
    return kept


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
