"""`python -m bench.studies.retrieval TASK`: what prompts that retrieve are worth on validation rows, without training.

The instruction of the style scorers with fixed demonstrations, two draws each, and with k retrieved train rows: the
nearest last, as runs show them, and first.
"""

import argparse
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from agent.records.evaluation import Measurements
from agent.records.examples import Candidate, Demo, Example, Prompt, Retrieval, Split
from agent.records.rounds import Spend
from eval.runner import Runner
from eval.tasks.fitting import fitted, measure
from eval.tasks.task import Task, load_task
from graphs.services.shared_model import shared_embedder
from memory.retrieval import NearestRows
from tools.model.backbone import Backbone
from tools.model.loading import load_model
from tools.model.retrieving import RetrievingLanguageModel

SIZES = (1, 2, 4, 8)


class NearestFirst(NearestRows):
    """The same rows in the opposite order."""

    def resolved(self, prompt: Prompt, examples: Sequence[Example]) -> tuple[Prompt, list[Example]]:
        prompt, rows = super().resolved(prompt, examples)
        return prompt, [row.model_copy(update={"demos": row.demos[::-1]}) for row in rows]


class Unkept:
    """Keeps nothing."""

    def load(self, candidate: Candidate, split: Split) -> Measurements:
        return Measurements(candidate=candidate, split=split)

    def save(self, measured: Measurements) -> None: ...


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line of a table for each prompt, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.studies.retrieval", description=__doc__)
    parser.add_argument("task", type=Path)
    options = parser.parse_args(arguments)
    task, spent = load_task(options.task), list[Spend]()
    config = task.config
    template = config.chat_template_kwargs
    model, tokenizer = load_model(
        config.model, device=config.device, dtype=config.dtype, chat_template_kwargs=template, progress=lambda *_: None
    )
    backbone = Backbone(
        model, tokenizer, name=config.model, locate=Path, chat_template_kwargs=template, charge=spent.append
    )
    task = fitted(task, measure(task, backbone.render, backbone.window))
    last, first = (kind(task.train, task.scorers, shared_embedder()) for kind in (NearestRows, NearestFirst))
    print("| prompt | joint reward | content | style | tokens read | generated |\n|---|---|---|---|---|---|")
    for name, prompt in prompts(task):
        for order, retriever in (("", last), (", nearest first", first))[: 2 if prompt.retrieval else 1]:
            spent.clear()
            run = Runner(task, RetrievingLanguageModel(backbone, retriever), {prompt.id: prompt}.__getitem__, Unkept())
            scored, total = run(Candidate(prompt=prompt.id), "validation"), sum(spent, Spend())
            numbers = f"{scored.reward:.2f} | {scored.content:.2f} | {scored.style:.2f}"
            print(f"| {name}{order} | {numbers} | {total.read_tokens:,} | {total.generated_tokens:,} |", flush=True)
    return 0


def prompts(task: Task) -> Iterator[tuple[str, Prompt]]:
    """The prompts to compare, with a name for each."""
    seed, scorers = task.config.prompt.prompt(), task.scorers
    instructed = seed.model_copy(update={"system": " ".join([seed.system, *scorers.instructions()]).strip()})
    yield from (("seed", seed), ("instruction", instructed))
    rows = [
        Demo(question=row.question, answer=shown)
        for row in task.train
        if row.stands_alone and scorers.full_marks(shown := scorers.show(row.answer), row)
    ]
    for size in SIZES:
        for draw in (0, 1) if size <= len(rows) else ():
            demos = tuple(random.Random(draw).sample(rows, size))
            yield f"{size} fixed, draw {draw}", instructed.model_copy(update={"demos": demos})
    for k in SIZES:
        yield f"{k} retrieved", instructed.model_copy(update={"retrieval": Retrieval(k=k)})


if __name__ == "__main__":
    raise SystemExit(main())
