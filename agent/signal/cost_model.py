"""What a round will cost, estimated from the task's sizes before the first one is done."""

from collections.abc import Sequence
from math import ceil
from statistics import fmean

from agent.config.task import TaskConfig
from agent.records.base import Record
from agent.records.examples import Example, Prompt

CHARACTERS = 4  # of a token; what English text comes to under the usual vocabularies
FASTER = 2.0  # training against answering, in forward tokens a second, where only one is known; 1.8 to 2.6 on a CPU
GENERAL_ROW = 40  # tokens of a general row beside a training row: tools/training/general.jsonl


class RoundCosts(Record):
    """What a round is estimated to take, in forward tokens (`Spend.forward_tokens`).

    `judging` is what the gate asks after either lever: an answer to every validation row. `keeping` is what it asks of
    new weights besides: an answer to every validation row of the tasks to be kept.
    """

    lora: float
    edit: float
    judging: float
    keeping: float = 0.0


def estimate_costs(
    config: TaskConfig, prompt: Prompt, train: Sequence[Example], validation: Sequence[Example]
) -> RoundCosts:
    """As the task is set up: rows, characters, epochs, proposals, minibatch.

    What rows share (system text, demonstrations) is read once a call, and in training once a batch. Retrieved few-shot
    examples are read for each row: the present prompt's, and those of the two proposals that retrieve. A trained token
    counts as three (`Spend.forward_tokens`). GEPA answers train rows while it searches, too. The length of a wrong
    answer is not known: it is taken as halfway from the reference to the limit. Proposals are taken to be compared on a
    full minibatch; under an adapter it may be a quarter of the validation rows, and cheaper.

    Args:
        prompt: the present one, whose text every question pays for.
    """
    few_shot = fmean(len(prompt.ask(row.question)) + len(row.answer) for row in train) / CHARACTERS
    retrieved = few_shot * (prompt.retrieval.k if prompt.retrieval else 0)
    asked = fmean(len(prompt.ask(row.question)) for row in validation) / CHARACTERS + retrieved
    wanted = fmean(len(row.answer) for row in validation) / CHARACTERS
    limit = config.generation.max_new_tokens
    answered = (min(wanted, limit) + limit) / 2
    shared = (prompt.length - len(prompt.template)) / CHARACTERS

    def answers(rows: int, calls: int = 1) -> float:
        return rows * (asked + answered) + calls * shared

    edit, lora = config.edit, config.lora
    minibatch = min(edit.minibatch, len(validation))
    compared = (edit.proposals + 1) * minibatch
    of_proposals = 0 if prompt.retrieval else minibatch * (edit.retrieve + edit.retrieve // 2) * few_shot
    searched = edit.answers if edit.editor == "gepa" else 0
    epoch = len(train) * (asked + wanted + lora.replay * GENERAL_ROW) + ceil(len(train) / lora.batch_size) * shared
    return RoundCosts(
        lora=3 * lora.epochs * epoch,
        edit=answers(compared, edit.proposals + 1)
        + of_proposals
        + answers(min(edit.learned_from, len(train)))
        + answers(searched, ceil(searched / edit.minibatch)),
        judging=answers(len(validation)),
    )
