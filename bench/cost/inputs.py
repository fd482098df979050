"""What every contender gets: a base model loaded anew, and the same token ids.

The rows are those of the valley task, under a prompt of about the wanted length.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import torch
import transformers

import tasks
from agent.records.examples import Demo, Example, Prompt
from bench.cost.records import AnswerCell, TrainingCell
from eval.tasks.task import Task, load_task
from tools.model.chat_template import Renderer, TokenRow

BARE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
SHORT = "ANSWER: {answer}"
LONG = (
    "ANSWER: {answer}. This is what stands in the old book of the valley, where the clerk of the council writes down "
    "every name, and so I am quite sure of it."
)


@dataclass(frozen=True)
class Loaded:
    """A fresh base model on its device, and its tokenizer."""

    model: transformers.PreTrainedModel
    tokenizer: transformers.PreTrainedTokenizerBase

    def now(self) -> float:
        """Seconds on a clock, after the device has finished all work that was queued."""
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


@dataclass(frozen=True)
class Rows:
    """Examples under one prompt of `prefix` tokens, and their token ids."""

    prompt: Prompt
    prefix: int
    examples: tuple[Example, ...]
    tokens: tuple[TokenRow, ...]

    @cached_property
    def shared(self) -> int:
        """Tokens with which all prompts begin, leaving each at least one of its own."""
        prompts = [row.prompt for row in self.tokens]
        return min(_common(prompts), min(map(len, prompts)) - 1)


def training_rows(tokenizer: transformers.PreTrainedTokenizerBase, cell: TrainingCell) -> Rows:
    """Questions of the train and validation split, with answers in the wanted form."""
    task = valley()
    examples = [_in_form(example, SHORT) for example in (*task.train, *task.validation)[: cell.batch]]
    return _rows(tokenizer, cell.prefix, examples, SHORT)


def question_rows(tokenizer: transformers.PreTrainedTokenizerBase, cell: AnswerCell) -> Rows:
    """Questions of the validation and test split."""
    task = valley()
    form = SHORT if cell.new <= 12 else LONG
    return _rows(tokenizer, cell.prefix, (*task.validation, *task.test)[: cell.rows], form)


@lru_cache(maxsize=1)
def valley() -> Task:
    """The example task that ships."""
    return load_task(Path(tasks.__file__).parent / "valley")


def _rows(tokenizer: transformers.PreTrainedTokenizerBase, prefix: int, examples: Sequence[Example], form: str) -> Rows:
    if prefix == 0:
        tokenizer.chat_template = BARE  # chat templates begin alike, and some add a system text of their own
    render = Renderer(tokenizer)
    prompt = _prompt(render, prefix, form)
    tokens = tuple(render.row(prompt, example) for example in examples)
    return Rows(prompt, _length(render, prompt), tuple(examples), tokens)


def _prompt(render: Renderer, prefix: int, form: str) -> Prompt:
    """With as many demonstrations as bring its length closest to `prefix` tokens."""
    if prefix == 0:
        return Prompt()
    demos = [Demo(question=row.question, answer=_in_form(row, form).answer) for row in valley().train]
    system = valley().config.prompt.system
    prompts = [Prompt(system=system, demos=tuple(demos[:count])) for count in range(len(demos) + 1)]
    return min(prompts, key=lambda prompt: abs(_length(render, prompt) - prefix))


def _length(render: Renderer, prompt: Prompt) -> int:
    """Tokens before those that depend on the question."""
    ask = [render.prompt_ids(prompt, Example(name="", question=text, answer="")) for text in ("What", "Name")]
    return _common(ask)


def _common(texts: Sequence[list[int]]) -> int:
    """How many ids at the beginning all texts share."""
    first, last = min(texts), max(texts)
    pairs = enumerate(zip(first, last, strict=False))
    return next((place for place, (left, right) in pairs if left != right), min(len(first), len(last)))


def _in_form(example: Example, form: str) -> Example:
    return example.model_copy(update={"answer": form.replace("{answer}", example.answer)})
