"""Training the weights: LoRA by peft, with the loss on the completions only."""

import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError

from agent.config.lora import Lora
from agent.errors import BadInput, DiskFull, StepFailed, is_disk_full
from agent.protocols import Progress
from agent.records.base import digest
from agent.records.rounds import Spend
from agent.records.training import Step, Training, TrainingJob, write_training
from tools.memory_budget import MemoryBudget, memory_budget_for
from tools.model.backbone import Backbone
from tools.training.checkpoint import FORMAT, Checkpoint, Reached, Start
from tools.training.general import GeneralRows
from tools.training.lora_config import new_lora, try_settings
from tools.training.optimizer_steps import OptimizerSteps, StepNumbers
from tools.training.plan import Rows, plan_steps, rate_factor
from tools.training.ranks import Ranks

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
        note: takes a sentence for the user.
    """

    def __init__(
        self,
        backbone: Backbone,
        settings: Lora,
        progress: Progress,
        ranks: Ranks | None = None,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._backbone = backbone
        self._settings = settings
        self._progress = progress
        self._ranks, self._leads = ranks, ranks is None or ranks.rank == 0
        self._note = note

    def train(self, job: TrainingJob) -> Training:
        """Render the rows, take the optimizer steps, and save the adapter; see `agent.protocols.Trainer.train`.

        Rows longer than `lora.max_tokens` or the model's window are left out and counted. Where the loss does not stay
        finite, the training begins again, once, at half the learning rate. Where a process was cut off in this very
        training, it goes on after that one's last checkpoint.

        Raises:
            StepFailed: the loss is not finite, at half the rate neither; or no row is short enough. The adapter is
                detached, nothing is saved.
            BadInput: peft refuses the settings.
        """
        backbone, action = self._backbone, job.action
        longest = min(self._settings.max_tokens, backbone.window)
        fitting = self._fitting(job, longest)
        with backbone.lock:  # nobody is answered by a model that is half trained
            checkpoint = self._checkpoint(job)
            backbone.release_decoder()
            general = GeneralRows(
                backbone, action.replay or 0.0, self._settings.kl, rows=len(fitting) * action.epochs, most=longest,
                seed=job.seed,
            )  # fmt: skip
            try:
                fit = self._fit_finite(job, fitting, general, checkpoint)
            except BaseException as error:  # Ctrl-C too: nothing half-trained stays attached
                backbone.detach(job.adapter)
                if isinstance(error, StepFailed):  # for good; after all else it can be gone on with
                    checkpoint.discard()
                raise
            training = Training(
                model=backbone.name, parent=job.parent, data=job.data, settings=self._settings, rows=action.rows,
                row_count=len(fitting), rewritten=job.rewritten, general=general.rows_an_epoch(len(fitting)),
                read_tokens=general.read_tokens, left_out=len(job.rows) - len(fitting), epochs=action.epochs,
                learning_rate=fit.learning_rate, rank=backbone.rank(job.adapter), seed=job.seed,
                steps=tuple(fit.steps), tokens=fit.tokens,
                seconds=checkpoint.seconds, stopped=fit.stopped, retried=fit.retried,
                pass_tokens=fit.budget.tokens, checkpointing=fit.budget.checkpointing,
                processes=self._ranks.size if self._ranks else 1,
            )  # fmt: skip
            if self._leads:
                try:
                    self._save(job.adapter, training, job.folder)
                except DiskFull:  # the checkpoint takes more room than the adapter
                    checkpoint.discard()
                    self._save(job.adapter, training, job.folder)
                checkpoint.discard()
        return training

    def _checkpoint(self, job: TrainingJob) -> Checkpoint:
        """This training's, by all that decides what it comes to. Limits do not: they change from process to process."""
        backbone, settings = self._backbone, self._settings
        how = settings.model_dump(mode="json", exclude={"checkpoint_seconds"})
        processes = self._ranks.size if self._ranks else 1
        decides = digest(
            [FORMAT, job.adapter, job.data, job.parent, job.seed, job.action.model_dump(mode="json"), how,
             backbone.name, str(backbone.base.dtype), backbone.device.type, processes]
        )  # fmt: skip
        every = settings.checkpoint_seconds if self._leads else 0  # whose clock counts for all
        return Checkpoint(job.folder, decides, every, self._note)

    def _fitting(self, job: TrainingJob, longest: int) -> Rows:
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

    def _fit_finite(self, job: TrainingJob, rows: Rows, general: GeneralRows, checkpoint: Checkpoint) -> Fit:
        """`_fit` on newly attached weights; where the loss does not stay finite, once more at half the rate."""
        start = self._start(checkpoint)
        limit = None if job.token_limit is None else job.token_limit + min(job.charged, start.reached.all_tokens)
        job = job.model_copy(update={"token_limit": limit})
        self._attach(job)
        if not start.reached.first_try:
            try:
                return self._fit(job, rows, general, start, checkpoint)
            except NotFinite as error:
                start = Start(Reached(first_try=str(error), first_tokens=error.tokens))
            if limit is not None and start.reached.all_tokens >= limit:
                raise StepFailed(
                    f"{start.reached.first_try}; the training-token budget is used up, so no lower rate was tried"
                )
            self._attach(job)
        first = start.reached.first_try
        slower = job.action.model_copy(update={"learning_rate": job.action.learning_rate / 2})
        try:
            fit = self._fit(job.model_copy(update={"action": slower}), rows, general, start, checkpoint)
        except NotFinite as error:
            raise StepFailed(f"{first}; {error}, half of it; try a lower lora.learning_rate") from None
        return fit._replace(retried=f"{first}, so it was begun again at half of it")

    def _start(self, checkpoint: Checkpoint) -> Start:
        """What a process that was cut off in this training has left, if anything. Of several processes all, or none."""
        found = checkpoint.read()
        lacking = self._any(found is None)  # and all have looked
        if found and not lacking:
            return found
        if self._leads:
            checkpoint.discard()
        return Start()

    def _fit(self, job: TrainingJob, rows: Rows, general: GeneralRows, start: Start, checkpoint: Checkpoint) -> Fit:
        """The optimizer steps: AdamW, a linear warm-up and decay of the learning rate, clipped gradients."""
        backbone, settings, action, reached = self._backbone, self._settings, job.action, start.reached
        plan = plan_steps(rows, settings, action.epochs, job.seed)
        rate = partial(rate_factor, warmup=round(settings.warmup * len(plan)), steps=len(plan))
        budget = self._budget()
        steps, tokens, stopped = list(reached.steps), reached.tokens, None
        backbone.base.train()
        optimizer = OptimizerSteps(backbone, settings, budget, self._ranks)
        general.begin()
        if steps:
            optimizer.load(start.tensors)
            self._goes_on(len(steps), len(plan))
        running: list[tuple[int, StepNumbers]] = []  # epochs and numbers of steps that may still be under way

        def record(most: int) -> None:
            """Add steps to those before them, once they are done, until so many may be under way."""
            while len(running) > most:
                epoch, numbers = running.pop(0)
                loss, norm = numbers.read()
                if not (math.isfinite(loss) and math.isfinite(norm)):
                    optimizer.close()
                    what = f"the loss became {loss}" if not math.isfinite(loss) else f"the gradient norm became {norm}"
                    where = f"at step {len(steps) + 1}, at rate {action.learning_rate:g}"
                    raise NotFinite(f"{what} {where}", reached.first_tokens + tokens)
                steps.append(Step(loss=loss, grad_norm=norm, epoch=epoch))
                note = f"epoch {epoch}/{action.epochs}, loss {loss:.3f}"
                self._progress("training LoRA", len(steps), len(plan), note)

        for number, (epoch, batches) in enumerate(plan, 1):
            beside = general.draw(sum(map(len, batches)))
            if number <= len(reached.steps):
                continue
            numbers = optimizer.run(batches, action.learning_rate * rate(number - 1), beside)
            tokens += numbers.tokens
            backbone.charge(Spend(train_tokens=numbers.tokens))
            running.append((epoch, numbers))
            epoch_ended = number == len(plan) or plan[number][0] > epoch
            # A device that runs ahead gets its next step before the numbers of this one are waited for.
            record(1 if optimizer.runs_ahead and not epoch_ended else 0)
            if job.token_limit is not None and reached.first_tokens + tokens >= job.token_limit:
                stopped = "the training-token budget was used up"
            elif job.deadline is not None and self._any(time.monotonic() >= job.deadline):
                stopped = "the time budget was used up"
            elif epoch_ended and number < len(plan) and _epoch_loss(steps) < action.enough:
                stopped = f"the rows were learned after {epoch} of {action.epochs} epochs"  # more would teach nothing
            if stopped:
                break
            if number < len(plan) and settings.checkpoint_seconds and self._any(checkpoint.is_due()):
                record(0)
                self._keep(checkpoint, optimizer, reached.at(steps, tokens, checkpoint.seconds))
        record(0)
        optimizer.close()
        return Fit(steps, reached.first_tokens + tokens, stopped, budget, action.learning_rate)

    def _budget(self) -> MemoryBudget:
        budget = memory_budget_for(self._backbone.base, self._settings.checkpointing, self._backbone.memory_budget)
        if self._ranks and self._backbone.device.type == "cpu":  # whose memory they share
            budget.tokens //= self._ranks.size
        return budget

    def _goes_on(self, done: int, total: int) -> None:
        self._progress("training LoRA", done, total, f"goes on after step {done} of {total}")
        self._note(f"The training that was cut off goes on after step {done} of {total}.")

    def _keep(self, checkpoint: Checkpoint, optimizer: OptimizerSteps, reached: Reached) -> None:
        state = optimizer.state()  # of all processes
        if self._leads:
            checkpoint.write(reached, state)

    def _any(self, flag: bool) -> bool:
        """Whether it is so, or was so in another of the processes that train together: all do the same after a step."""
        return self._ranks.any(flag) if self._ranks else flag


def _epoch_loss(steps: Sequence[Step]) -> float:
    """Mean loss of the steps of the last epoch, nats per token."""
    losses = [step.loss for step in steps if step.epoch == steps[-1].epoch]
    return sum(losses) / len(losses)
