"""Training the weights: LoRA by peft, with the loss on the completions only."""

import math
import os
import random
import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from safetensors import SafetensorError

from agent.config.lora import Lora
from agent.errors import BadInput, DiskFull, StepFailed, is_disk_full
from agent.protocols import Progress
from agent.records.rounds import Spend
from agent.records.training import Step, Training, TrainingJob, write_training
from tools.memory_budget import MemoryBudget, memory_budget_for
from tools.model.backbone import Backbone
from tools.model.chat_template import TokenRow
from tools.training.general import GeneralRows
from tools.training.lora_config import new_lora, try_settings
from tools.training.optimizer_steps import OptimizerSteps, StepNumbers
from tools.training.ranks import Ranks

T = TypeVar("T")

UNTOLD = 100_000  # bytes beside the weights in an adapter's folder: its settings, the log of its training


class Fit(NamedTuple):
    """The optimizer steps of a training, their forward tokens, why they ended early, and what memory held."""

    steps: list[Step]
    tokens: int
    stopped: str | None
    budget: MemoryBudget
    learning_rate: float
    retried: str = ""


class NotFinite(StepFailed):
    """The loss or its gradient became infinite or no number, after so many forward tokens; a lower rate may do."""

    def __init__(self, message: str, tokens: int) -> None:
        super().__init__(message)
        self.tokens = tokens


class LoraTrainer:
    """Trains LoRA adapters of one model. Satisfies `agent.protocols.Trainer`.

    Args:
        backbone: the model; an adapter stays attached to it after its training.
        settings: the `lora` section of the task.
        progress: called after each optimizer step, with its loss.
        ranks: the processes that train together, each with a model of its own; None: this one alone.
    """

    def __init__(self, backbone: Backbone, settings: Lora, progress: Progress, ranks: Ranks | None = None) -> None:
        self._backbone = backbone
        self._settings = settings
        self._progress = progress
        self._ranks = ranks

    def train(self, job: TrainingJob) -> Training:
        """Render the rows, take the optimizer steps, and save the adapter; see `agent.protocols.Trainer.train`.

        Rows longer than `lora.max_tokens` or the model's window are left out and counted. Where the loss does not stay
        finite, the training begins again, once, at half the learning rate.

        Raises:
            StepFailed: the loss is not finite, at half the rate neither; or no row is short enough. The adapter is
                detached, nothing is saved.
            BadInput: peft refuses the settings.
        """
        backbone, action = self._backbone, job.action
        longest = min(self._settings.max_tokens, backbone.window)
        fitting = self._fitting(job, longest)
        with backbone.lock:  # nobody is answered by a model that is half trained
            started = time.monotonic()
            backbone.release_decoder()
            general = GeneralRows(
                backbone, action.replay or 0.0, self._settings.kl, rows=len(fitting) * action.epochs, most=longest,
                seed=job.seed,
            )  # fmt: skip
            try:
                fit = self._fit_finite(job, fitting, general)
            except BaseException:  # Ctrl-C too: nothing half-trained stays attached
                backbone.detach(job.adapter)
                raise
            training = Training(
                model=backbone.name, parent=job.parent, data=job.data, settings=self._settings, rows=action.rows,
                row_count=len(fitting), rewritten=job.rewritten, general=general.rows_an_epoch(len(fitting)),
                read_tokens=general.read_tokens, left_out=len(job.rows) - len(fitting), epochs=action.epochs,
                learning_rate=fit.learning_rate, rank=backbone.rank(job.adapter), seed=job.seed,
                steps=tuple(fit.steps), tokens=fit.tokens,
                seconds=time.monotonic() - started, stopped=fit.stopped, retried=fit.retried,
                pass_tokens=fit.budget.tokens, checkpointing=fit.budget.checkpointing,
                processes=self._ranks.size if self._ranks else 1,
            )  # fmt: skip
            if self._ranks is None or self._ranks.rank == 0:
                self._save(job.adapter, training, job.folder)
        return training

    def _fitting(self, job: TrainingJob, longest: int) -> list[tuple[str, TokenRow]]:
        """(prompt id, row) of each row of at most `longest` tokens. Raises StepFailed where there is none."""
        if not job.rows:
            raise StepFailed("no train row can be shown in the wanted form; give the style scorer a `show:` template")
        rendered = [(prompt.id, self._backbone.render.row(prompt, example)) for prompt, example in job.rows]
        fitting = [(prompt, row) for prompt, row in rendered if len(row) <= longest]
        if not fitting:
            raise StepFailed(
                f"all {len(rendered)} training rows are longer than {longest} tokens (lora.max_tokens, or the model's "
                "window)"
            )
        return fitting

    def _save(self, adapter: str, training: Training, folder: Path) -> None:
        """Written under another name and renamed when complete, so that no kill leaves half an adapter."""
        partial_folder = folder.with_name(f"{folder.name}.partial")
        for stale in (partial_folder, folder):
            shutil.rmtree(stale, ignore_errors=True)
        try:
            self._backbone.save(adapter, partial_folder)
            write_training(training, partial_folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(partial_folder, ignore_errors=True)  # room for what has to be written now
            if not is_disk_full(error):
                raise
            weights = [weight for weight in self._backbone.model.parameters() if weight.requires_grad]
            raise DiskFull(folder, sum(weight.nbytes for weight in weights) + UNTOLD) from error
        os.replace(partial_folder, folder)

    def _attach(self, job: TrainingJob) -> None:
        """A LoRA that continues its parent's weights, or a new one drawn by the seed."""
        torch.manual_seed(job.seed)
        self._backbone.detach(job.adapter)
        if job.parent is not None:
            self._backbone.attach(job.adapter, source=job.parent, trainable=True)
            return
        rank = job.action.rank
        try:
            new_lora(self._backbone, job.adapter, rank, self._settings)
        except BadInput as error:
            try_settings(self._backbone, self._settings)  # raises where the rank is not to blame
            raise StepFailed(
                f"rank {rank} instead of lora.rank {self._settings.rank} is not possible: {error}"
            ) from error

    def _fit_finite(self, job: TrainingJob, rows: list[tuple[str, TokenRow]], general: GeneralRows) -> Fit:
        """`_fit` on newly attached weights; where the loss does not stay finite, once more at half the rate."""
        self._attach(job)
        try:
            return self._fit(job, rows, general)
        except NotFinite as error:
            first, used = str(error), error.tokens
        if job.token_limit is not None and used >= job.token_limit:
            raise StepFailed(f"{first}; the training-token budget is used up, so no lower rate was tried")
        self._attach(job)
        slower = job.action.model_copy(update={"learning_rate": job.action.learning_rate / 2})
        left = None if job.token_limit is None else job.token_limit - used
        try:
            fit = self._fit(job.model_copy(update={"action": slower, "token_limit": left}), rows, general)
        except NotFinite as error:
            raise StepFailed(f"{first}; {error}, half of it; try a lower lora.learning_rate") from None
        return fit._replace(tokens=fit.tokens + used, retried=f"{first}, so it was begun again at half of it")

    def _fit(self, job: TrainingJob, rows: list[tuple[str, TokenRow]], general: GeneralRows) -> Fit:
        """The optimizer steps: AdamW, a linear warm-up and decay of the learning rate, clipped gradients."""
        backbone, settings, action = self._backbone, self._settings, job.action
        plan = [
            (epoch, batches)
            for epoch in range(1, action.epochs + 1)
            for batches in chunks(plan_epoch(rows, settings.batch_size, job.seed + epoch - 1), settings.accumulate)
        ]
        rate = partial(rate_factor, warmup=round(settings.warmup * len(plan)), steps=len(plan))
        budget = memory_budget_for(backbone.base, settings.checkpointing, backbone.memory_budget)
        if self._ranks and backbone.device.type == "cpu":  # whose memory they share
            budget.tokens //= self._ranks.size
        steps, tokens, stopped = list[Step](), 0, None
        backbone.base.train()
        optimizer = OptimizerSteps(backbone, settings, budget, self._ranks)
        running: list[tuple[int, StepNumbers]] = []  # epochs and numbers of steps that may still be under way

        def record(epoch: int, numbers: StepNumbers) -> None:
            """Add a step to those before it, once it is done."""
            loss, norm = numbers.read()
            if not (math.isfinite(loss) and math.isfinite(norm)):
                optimizer.close()
                of_what = f"the loss became {loss}" if not math.isfinite(loss) else f"the gradient norm became {norm}"
                raise NotFinite(f"{of_what} at step {len(steps) + 1}, at rate {action.learning_rate:g}", tokens)
            steps.append(Step(loss=loss, grad_norm=norm, epoch=epoch))
            self._progress("training LoRA", len(steps), len(plan), f"epoch {epoch}/{action.epochs}, loss {loss:.3f}")

        for number, (epoch, batches) in enumerate(plan, 1):
            beside = general.draw(sum(map(len, batches)))
            numbers = optimizer.run(batches, action.learning_rate * rate(number - 1), beside)
            tokens += numbers.tokens
            backbone.charge(Spend(train_tokens=numbers.tokens))
            running.append((epoch, numbers))
            epoch_ended = number == len(plan) or plan[number][0] > epoch
            # A device that runs ahead gets its next step before the numbers of this one are waited for.
            while len(running) > (1 if optimizer.runs_ahead and not epoch_ended else 0):
                record(*running.pop(0))
            if job.token_limit is not None and tokens >= job.token_limit:
                stopped = "the training-token budget was used up"
            elif job.deadline is not None and self._is_late(job.deadline):
                stopped = "the time budget was used up"
            elif epoch_ended and number < len(plan) and _epoch_loss(steps) < action.enough:
                stopped = f"the rows were learned after {epoch} of {action.epochs} epochs"  # more would teach nothing
            if stopped:
                break
        for epoch, numbers in running:
            record(epoch, numbers)
        optimizer.close()
        return Fit(steps, tokens, stopped, budget, action.learning_rate)

    def _is_late(self, deadline: float) -> bool:
        """Whether the time is over. Processes that train together stop after the same step: all, where one is late."""
        late = time.monotonic() >= deadline
        return self._ranks.any(late) if self._ranks else late


def rate_factor(step: int, warmup: int, steps: int) -> float:
    """Share of the learning rate at a step, from 0: a linear rise over `warmup` steps, then a linear fall.

    It is never 0, not even at the first step (where transformers' own linear schedule begins, and wastes it).
    """
    return (step + 1) / (warmup + 1) if step < warmup else (steps - step) / max(1, steps - warmup)


def plan_epoch(rows: Sequence[tuple[str, TokenRow]], size: int, seed: int) -> list[list[TokenRow]]:
    """Every row once, shuffled, in batches of at most `size` rows of one prompt: their shared prefix runs once.

    Args:
        rows: (prompt id, row) pairs.
    """
    shuffle = random.Random(seed)
    by_prompt: dict[str, list[TokenRow]] = {}
    for prompt, row in shuffle.sample(list(rows), len(rows)):
        by_prompt.setdefault(prompt, []).append(row)
    batches = [batch for same in by_prompt.values() for batch in chunks(same, size)]
    shuffle.shuffle(batches)
    return batches


def chunks(items: Sequence[T], size: int) -> list[list[T]]:
    """The items in order, in lists of `size`; the last may be shorter."""
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


def _epoch_loss(steps: Sequence[Step]) -> float:
    """Mean loss of the steps of the last epoch, nats per token."""
    losses = [step.loss for step in steps if step.epoch == steps[-1].epoch]
    return sum(losses) / len(losses)
