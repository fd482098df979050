"""Tries new tasks out: `python -m graphs.queue.probe`, a process of its own.

Reads folders and settings of tasks from standard input, as a JSON list; prints a `Tried` for each, a line each.
"""

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, get_args

from agent.config.scorers import Judge, RewardModel
from agent.config.task import TaskConfig
from agent.errors import BadInput, NesyLoraError
from agent.policy.base import trains_bare
from agent.policy.rules import Rules
from agent.protocols import Briefing
from agent.records.actions import EditPrompt
from agent.records.evaluation import Evaluation, Measurements
from agent.records.examples import Candidate, Demo, Example, Prompt, Split
from agent.records.queue import Rate
from agent.records.rounds import Spend
from agent.records.signal import Signal
from agent.signal.cost_model import FASTER, Sizes
from agent.signal.monitor import Lever, observe
from agent.signal.run_costs import Sample, Tried
from eval.tasks.task import Task, build_task
from graphs.services.shared_model import shared_backbone, shared_embedder

if TYPE_CHECKING:
    from tools.model.backbone import Backbone
    from tools.model.chat_template import TokenRow

ROWS = 8  # validation rows that are answered, by the seed prompt and by each proposal
PROPOSALS = 3  # of an edit, the first: the instruction spelled out, and retrieved rows, many and few
MEASURED = 50  # train rows whose length is measured


class Unkept:
    """Keeps nothing of what is measured. Satisfies `eval.runner.EvaluationStore`."""

    def load(self, candidate: Candidate, split: Split) -> Measurements:
        return Measurements(candidate=candidate, split=split)

    def save(self, measured: Measurements) -> None: ...


class Trial:
    """A task being tried: its model, and what that has used up."""

    def __init__(self, task: Task) -> None:
        began = time.monotonic()
        from memory.embedder import is_installed
        from memory.retrieval import NearestRows
        from tools.model.retrieving import RetrievingLanguageModel

        self.task, self._used = task, Spend()
        self.backbone: Backbone = shared_backbone(task.config, Path, lambda *_: None, self._charge, lambda _: None)
        retriever = NearestRows(task.train, task.scorers, lambda texts: shared_embedder()(texts))
        self.model = RetrievingLanguageModel(self.backbone, retriever)
        if is_installed():
            shared_embedder()([task.train[0].question])
        self.loading = time.monotonic() - began

    def _charge(self, spend: Spend) -> None:
        self._used += spend

    def sample(self) -> Sample:
        """Answer a few rows, by the seed prompt and by the proposals of a first edit."""
        prompt, rows = self.task.config.prompt.prompt(), self.task.validation
        self.model.generate(prompt, rows[:1], adapter=None, max_new_tokens=2)  # warm
        self._used, began = Spend(), time.monotonic()
        asks = any(
            isinstance(scorer, Judge | RewardModel) for scorer in (*self.task.config.content, *self.task.config.style)
        )
        answered, before = self._answers(prompt, scored=not asks)
        tried, first = [(prompt, answered, before)], None
        if before is not None:
            first = self._first(prompt, before)
            tried += [(edit, *self._answers(edit, scored=True)) for edit in self._proposals(prompt, before)]
        rate = self._used.forward_tokens / max(time.monotonic() - began, 1e-6)
        highest = max((scores.reward for _, _, scores in tried if scores), default=0.0)
        # A row decides nothing here; and of equals, an edit takes the cheapest.
        good = [one for one in tried if one[2] is None or one[2].reward >= highest - 1 / len(rows) - 1e-9]
        best, tokens, scores = min(good, key=lambda one: one[0].price)
        return Sample(
            rate=Rate(answering=rate, training=FASTER * rate, source="a probe just now"),
            loading=self.loading,
            sizes=self._sizes(prompt, answered),
            answered=tokens,
            k=best.retrieval.k if best.retrieval else 0,
            before=None if before is None else before.reward,
            after=None if before is None else highest,
            first=first,
            bare=scores is not None and trains_bare(self._signal(best, scores), self.task.config, ()),
        )

    def _first(self, prompt: Prompt, evaluation: Evaluation) -> Lever | None:
        """The lever that the rules would pull first, by the diagnosis that a run begins with, of these rows."""
        from memory.embedder import is_installed
        from tools.diagnosis.classify import Classifier
        from tools.diagnosis.luck import Luck

        task, config = self.task, self.task.config
        if not config.observes:
            return None
        classifier = Classifier(
            self.model, task.scorers, task.train, max_new_tokens=config.generation.max_new_tokens,
            retrieves=is_installed() and config.edit.retrieve > 0,
            luck=Luck(task.luck, has_form=bool(config.style)),
        )  # fmt: skip
        diagnosis = classifier.diagnose(evaluation, task.validation, prompt, config.seed)
        signal = self._signal(prompt, evaluation)
        action = Rules(config).decide(Briefing(signal, diagnosis, (), Spend())).move.action
        return next((lever for lever in get_args(Lever) if lever == action), None)

    def _signal(self, prompt: Prompt, evaluation: Evaluation) -> Signal:
        task = self.task
        return observe(
            evaluation, 0.0, (), refined=prompt != task.config.prompt.prompt(), shown=task.shown, remade=task.remade,
            few_shot=prompt.shown > 0, luck=task.luck,
        )  # fmt: skip

    def _answers(self, prompt: Prompt, scored: bool) -> tuple[float, Evaluation | None]:
        """Tokens of an answer; and the scores, unless a judge would have to be asked for them."""
        from eval.runner import Runner

        before, config = self._used.generated_tokens, self.task.config
        scores = None
        if scored:
            whole = config.edit.editor != "rules"
            scores = Runner(self.task, self.model, lambda _: prompt, Unkept(), whole=whole)(
                Candidate(prompt=prompt.id), "validation"
            )
        else:
            new = config.generation.max_new_tokens
            self.model.generate(prompt, self.task.validation, adapter=None, max_new_tokens=new)
        return (self._used.generated_tokens - before) / len(self.task.validation), scores

    def _proposals(self, prompt: Prompt, evaluation: Evaluation) -> list[Prompt]:
        from memory.embedder import is_installed
        from tools.editing.rule_editor import RuleEditor

        config = self.task.config
        editor = RuleEditor(self.task.scorers, config.edit, retrieves=is_installed())
        edits = editor.propose(prompt, evaluation, self.task.train, EditPrompt(), config.seed).edits
        return [edit.prompt for edit in edits[:PROPOSALS]]

    def _sizes(self, prompt: Prompt, answered: float) -> Sizes:
        """As the tokenizer has them."""
        from tools.packed.packing import common_prefix

        task, render, window = self.task, self.backbone.render, self.backbone.window
        bare = prompt.model_copy(update={"retrieval": None})
        asked = _fitting([render.row(bare, self._shown(row)) for row in task.validation], window)
        some = [self._shown(row) for row in task.train[:MEASURED]]
        train = _fitting([render.row(bare, row) for row in some], min(window, task.config.lora.max_tokens))
        shared = len(common_prefix([*asked, *train]))
        question = self._shown(task.validation[0])
        shows = [len(render.prompt_ids(_showing(bare, row), question)) for row in some]
        return Sizes(
            asked=fmean(len(row.prompt) for row in [*asked, *train]) - shared,
            wanted=fmean(len(row.completion) for row in [*asked, *train]),
            answered=answered,
            shown=median(shows) - len(render.prompt_ids(bare, question)),
            shared=shared,
        )

    def _shown(self, row: Example) -> Example:
        """The row with its answer in the wanted form."""
        return row.model_copy(update={"answer": self.task.scorers.show(row.answer)})


def _fitting(rows: list["TokenRow"], most: int) -> list["TokenRow"]:
    """Those that are not too long; all, where none is short enough, which the run will say."""
    return [row for row in rows if len(row) <= most] or rows


def _showing(prompt: Prompt, row: Example) -> Prompt:
    demo = Demo(question=row.question, answer=row.answer)
    return prompt.model_copy(update={"demos": (*prompt.demos, demo)})


def main() -> None:
    """Try each task that is asked for."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)  # what a scorer or a library prints is no answer
        for asked in json.load(sys.stdin):
            config, tried = TaskConfig.model_validate(asked["config"]), Tried()
            try:
                task = build_task(config, Path(asked["folder"]))
                tried = Tried(sample=Trial(replace(task, validation=task.validation[:ROWS])).sample())
            except BadInput as error:
                tried = Tried(fault=str(error))
            except NesyLoraError:  # which may be over when its turn comes
                pass
            print(tried.model_dump_json(), file=answers, flush=True)


if __name__ == "__main__":
    main()
