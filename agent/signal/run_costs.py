"""What a run will take, in forward tokens (`Spend.forward_tokens`): likely, and at most."""

from itertools import takewhile
from typing import NamedTuple

from pydantic import Field

from agent.config.policies import PLANNING
from agent.config.task import TaskConfig
from agent.policy.schedules import letters_of
from agent.records.base import Record
from agent.records.queue import Rate, Steps
from agent.signal.cost_model import GENERAL_ROW, Sizes, costs_of
from agent.signal.monitor import Lever

PROBED = 8  # rows that are probed before a round: 4 where the first leave no doubt, 12 where they do
MOST_PROBED = 12
TRIAL = 16  # tokens of a short answer of a probe, at most
DRIFT = 1520  # tokens of the general texts, read with each training's weights
BARE = 1700  # what the bare model reads and answers of them, once in a run that trains
GENERAL = 56  # texts beside a training, whose bare predictions are read before it
# Trainings end once their rows are learned. In 100 of ten tasks, first trainings took 0.85 of their epochs (0.5 to 1);
# where each row shows its nearest ones, 3 epochs (2 to 4; all, where rows cannot be learned).
LEARNED = 0.85
LEARNED_SHOWN = 3


class Sample(Record):
    """What a few answers to a task's validation rows tell before a run: `graphs.queue.probe`."""

    rate: Rate
    sizes: Sizes
    loading: float = Field(0.0, description="seconds that the model takes to be loaded")
    answered: float = Field(description="tokens of an answer by the best proposal of an edit")
    k: int = Field(description="rows that the best proposal retrieves")
    before: float | None = Field(None, description="reward of the seed prompt; None: a judge would have to be asked")
    after: float | None = Field(None, description="of the best proposal, the seed prompt among them")
    first: Lever | None = Field(None, description="what the rules would do first; None: not known, or nothing")
    bare: bool = Field(False, description="whether a training after that edit does without its few-shot examples")


class Tried(Record):
    """What the probe says of a task: None where it could not be tried."""

    sample: Sample | None = None
    fault: str = Field("", description="why the run would end before its first step")


class Counts(NamedTuple):
    """Rows of each split."""

    train: int
    validation: int
    test: int


class Pair(NamedTuple):
    """What a step meets: rows of these sizes, and how many few-shot examples the prompt retrieves for each."""

    sizes: Sizes
    k: int = 0

    @property
    def answer(self) -> float:
        """Tokens of a question and its answer."""
        return self.sizes.retrieving(self.k).asked + self.sizes.answered


class Training(NamedTuple):
    """A round that trains: all of it, and the tokens trained on."""

    tokens: float
    trained: float


def start(counts: Counts, pair: Pair) -> float:
    """The seed prompt on the validation rows."""
    return counts.validation * pair.answer + pair.sizes.shared


def edit(config: TaskConfig, counts: Counts, before: Pair, after: Pair, probed: int = PROBED) -> float:
    """A round that edits.

    Args:
        after: the best of its proposals, which is judged.
        probed: rows that are probed first, by a policy that looks.
    """
    sizes = before.sizes.retrieving(before.k)
    own = costs_of(config, sizes, counts.train, counts.validation, retrieves=before.k > 0).edit
    return _probes(config, counts, sizes, probed) + own + counts.validation * after.answer


def training(
    config: TaskConfig, counts: Counts, before: Pair, after: Pair, epochs: float, probed: int = PROBED
) -> Training:
    """A round that trains, the first of a run.

    Args:
        after: the same prompt with the new weights, which are judged.
    """
    lora, sizes = config.lora, before.sizes.retrieving(before.k)
    own = costs_of(config, sizes, counts.train, counts.validation).lora * epochs / lora.epochs
    general = min(GENERAL, lora.replay * counts.train * epochs) * GENERAL_ROW
    drift = 0 if config.gate.drift is None else DRIFT + BARE
    rest = _probes(config, counts, sizes, probed) + counts.validation * after.answer + general + drift
    return Training(own + rest, own / 3)


def end(counts: Counts, seed: Pair, best: Pair) -> float:
    """Both pairs on the test rows."""
    return counts.test * (seed.answer + best.answer)


class Forecast(NamedTuple):
    """What a run takes if it goes as the sample suggests, and at most. `trained` are tokens of one training."""

    levers: tuple[Lever, ...]
    likely: Steps
    most: Steps
    trained: float


def forecast(config: TaskConfig, counts: Counts, sizes: Sizes, sample: Sample | None) -> Forecast:
    """Of a task that has not run before.

    Args:
        sizes: of its rows under the seed prompt, without what that retrieves.
        sample: None: nothing was tried, and words are taken to help, but not to suffice.
    """
    levers, own = likely_levers(config, sample), config.prompt.retrieval
    few = config.edit.retrieve // 2
    k = sample.k if sample else few if counts.train >= 2 * few else 0
    seed = Pair(sizes, own.k if own else 0)
    edited = Pair(sizes.model_copy(update={"answered": sample.answered if sample else sizes.wanted}), k)
    is_after_edit = "edit_prompt" in takewhile(lambda lever: lever != "train_lora", levers)
    is_bare = is_after_edit and config.policy in PLANNING and sample is not None and sample.bare
    before = Pair(seed.sizes, 0) if is_bare else edited if is_after_edit else seed
    learned = before._replace(sizes=before.sizes.model_copy(update={"answered": sizes.wanted}))
    trained = training(config, counts, before, learned, likely_epochs(config, before.k))
    best = learned if is_bare or (levers and "edit_prompt" not in levers) else edited if levers else seed
    pairs = _brought(config)
    likely = Steps(
        start=pairs * start(counts, seed),
        lora=trained.tokens,
        edit=edit(config, counts, seed, edited),
        end=end(counts, seed, best) + (pairs - 1) * (counts.test * seed.answer + DRIFT),
    )
    return Forecast(levers, likely, _most(config, counts, sizes), trained.trained)


def likely_levers(config: TaskConfig, sample: Sample | None) -> tuple[Lever, ...]:
    """Those of the rounds that are likely needed, as far as a sample tells; at most as many as the budget allows.

    What follows where the first round does not suffice is not known. Of ten runs by the rules that began with words and
    had three rounds or more, three took one training, the others two, or one after several edits. Of 14 that began with
    a training, four ended with that, eight trained again, two went on with words.
    """
    reached = sample is not None and sample.after is not None and sample.after >= config.target
    if reached and sample and sample.before is not None and sample.before >= config.target:
        return ()
    planned: list[Lever]
    if config.policy == "paper":
        planned = [_weights, _words, _weights]
    elif config.observes:
        planned = [_weights, _weights] if sample and sample.first == _weights else [_words, _weights, _weights]
    else:
        letters = takewhile(bool, map(letters_of(config), range(config.budget.rounds)))
        planned = [_words if letter == "p" else _weights for letter in letters]
        if len(set(planned)) > 1:  # until both were tried
            planned = planned[: max(planned.index(lever) for lever in set(planned)) + 1]
    if reached and _words in planned:  # the rest is not needed
        planned = planned[: planned.index(_words) + 1]
    return tuple(planned[: config.budget.rounds])


def likely_epochs(config: TaskConfig, k: int) -> float:
    """Of a first training, which ends once its rows are learned."""
    return min(config.lora.epochs, LEARNED_SHOWN) if k else LEARNED * config.lora.epochs


_words: Lever = "edit_prompt"
_weights: Lever = "train_lora"


def _most(config: TaskConfig, counts: Counts, sizes: Sizes) -> Steps:
    """Answers of the full length, all few-shot examples that may be retrieved, and all epochs."""
    own, pairs = config.prompt.retrieval, _brought(config)
    full = sizes.model_copy(update={"answered": float(config.generation.max_new_tokens)})
    seed, dear = Pair(full, own.k if own else 0), Pair(full, max(own.k if own else 0, config.edit.retrieve))
    return Steps(
        start=pairs * start(counts, seed),
        lora=training(config, counts, dear, dear, config.lora.epochs, MOST_PROBED).tokens,
        edit=edit(config, counts, dear, dear, MOST_PROBED),
        end=end(counts, seed, dear) + (pairs - 1) * (counts.test * seed.answer + DRIFT),
    )


def _brought(config: TaskConfig) -> int:
    """Pairs that a task comes with: the seed prompt, and the same with the task's own adapter."""
    return 2 if config.start and config.start.adapter else 1


def _probes(config: TaskConfig, counts: Counts, sizes: Sizes, probed: int) -> float:
    """Likelihoods of whole reference and own answer, under two few-shot examples and without; and two short answers."""
    if not config.observes or "classifier" in config.without:
        return 0.0
    row = 5 * sizes.asked + 3 * sizes.wanted + 6 * sizes.shown + 2 * min(sizes.answered, TRIAL)
    return min(probed, counts.validation) * row
