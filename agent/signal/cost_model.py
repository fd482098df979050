"""What a round will cost, estimated from the task's sizes before the first one is done."""

from collections.abc import Sequence
from math import ceil
from statistics import fmean

from pydantic import Field

from agent.config.task import TaskConfig
from agent.records.base import Record
from agent.records.examples import Example, Prompt

CHARACTERS = 4  # of a token; what English text comes to under the usual vocabularies
# Trained tokens (each three) against others, in forward tokens a second, where only one is known: medians of 378 and 62
# runs of SmolLM2 on a CPU are 1.45 and 1.40.
FASTER = 1.4
GENERAL_ROW = 56  # tokens of a general row beside a training row, as SmolLM2 has them: tools/training/general.jsonl


class RoundCosts(Record):
    """What a round is estimated to take, in forward tokens (`Spend.forward_tokens`).

    `judging` is what the gate asks after either lever: an answer to every validation row. `keeping` is what it asks of
    new weights besides: an answer to every validation row of the tasks to be kept.
    """

    lora: float
    edit: float
    judging: float
    keeping: float = 0.0


class Sizes(Record):
    """Tokens of a task's rows, on average."""

    asked: float = Field(description="of a question as it is put, with the few-shot examples retrieved for it")
    wanted: float = Field(description="of a reference answer")
    answered: float = Field(description="of the model's own answer")
    shown: float = Field(description="of a train row as few-shot example")
    shared: float = Field(0.0, description="that all questions share: system text, demonstrations")

    def retrieving(self, k: int) -> "Sizes":
        """With so many few-shot examples more before each question."""
        return self.model_copy(update={"asked": self.asked + k * self.shown})


def estimate_costs(
    config: TaskConfig, prompt: Prompt, train: Sequence[Example], validation: Sequence[Example]
) -> RoundCosts:
    """As the task is set up: rows, characters, epochs, proposals, minibatch.

    Args:
        prompt: the present one, whose text every question pays for.
    """
    k = prompt.retrieval.k if prompt.retrieval else 0
    sizes = sizes_of(config, prompt, train, validation)
    return costs_of(config, sizes.retrieving(k), len(train), len(validation), retrieves=k > 0)


def sizes_of(config: TaskConfig, prompt: Prompt, train: Sequence[Example], validation: Sequence[Example]) -> Sizes:
    """By characters, without what the prompt retrieves.

    The length of a wrong answer is not known: it is taken as halfway from the reference to the limit.
    """
    wanted, limit = fmean(len(row.answer) for row in validation) / CHARACTERS, config.generation.max_new_tokens
    return Sizes(
        asked=fmean(len(prompt.ask(row.question)) for row in validation) / CHARACTERS,
        wanted=wanted,
        answered=(min(wanted, limit) + limit) / 2,
        shown=fmean(len(prompt.ask(row.question)) + len(row.answer) for row in train) / CHARACTERS,
        shared=(prompt.length - len(prompt.template)) / CHARACTERS,
    )


def costs_of(config: TaskConfig, sizes: Sizes, train: int, validation: int, retrieves: bool = False) -> RoundCosts:
    """What rounds take with rows of these sizes.

    What rows share (system text, demonstrations) is read once a call, and in training once a batch. Retrieved few-shot
    examples are read for each row: the present prompt's, and those of the two proposals that retrieve. A trained token
    counts as three (`Spend.forward_tokens`). GEPA answers train rows while it searches, too. Proposals are taken to be
    compared on a full minibatch; under an adapter it may be a quarter of the validation rows, and cheaper.

    Args:
        train: how many rows there are.
        validation: as `train`.
        retrieves: whether the present prompt does.
    """

    def answers(rows: int, calls: int = 1) -> float:
        return rows * (sizes.asked + sizes.answered) + calls * sizes.shared

    edit, lora = config.edit, config.lora
    minibatch = min(edit.minibatch, validation)
    compared = (edit.proposals + 1) * minibatch
    of_proposals = 0 if retrieves else minibatch * (edit.retrieve + edit.retrieve // 2) * sizes.shown
    searched = edit.answers if edit.editor == "gepa" else 0
    epoch = train * (sizes.asked + sizes.wanted + lora.replay * GENERAL_ROW)
    epoch += ceil(train / lora.batch_size) * sizes.shared
    return RoundCosts(
        lora=3 * lora.epochs * epoch,
        edit=answers(compared, edit.proposals + 1)
        + of_proposals
        + answers(min(edit.learned_from, train))
        + answers(searched, ceil(searched / edit.minibatch)),
        judging=answers(validation),
    )
