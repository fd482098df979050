"""The algorithm as a plain loop: the graph's, without checkpoints, memory, report, or any budget but rounds.

    python examples/loop.py [TASK]

Observe the best pair, decide on a lever, pull it, judge the trial against the best pair, keep it or take it back.
"""

import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that it runs from a checkout

from agent.config.task import TaskConfig
from agent.policy.make import make_policy
from agent.protocols import Briefing
from agent.records.actions import EditPrompt, Stop, TrainLora
from agent.records.drift import GeneralBaseline
from agent.records.evaluation import Evaluation
from agent.records.examples import Candidate, Example, Prompt
from agent.records.rounds import Round, Spend, Trial, Verdict
from agent.records.training import TrainingJob
from agent.signal import monitor
from eval.alpha_spending import alpha_to_spend
from eval.batches import batch
from eval.forgetting import object_to_forgetting
from eval.gate import deciding_rows, gate, least_p
from eval.runner import Runner
from eval.stats import standard_error
from eval.tasks.fitting import fitted, measure
from eval.tasks.task import Task, load_task
from memory.embedder import MiniLm
from memory.remake import remake, select
from memory.retrieval import NearestRows, with_retrieved
from memory.run.folder import RunFolder
from tools.diagnosis.classify import Classifier
from tools.diagnosis.drift import drift, general_baseline
from tools.diagnosis.luck import Luck
from tools.editing.comparison import compare_proposals
from tools.editing.rule_editor import RuleEditor
from tools.model.backbone import Backbone
from tools.model.loading import load_model
from tools.model.retrieving import RetrievingLanguageModel
from tools.training.lora import LoraTrainer


def show(what: str, done: int, total: int, note: str = "") -> None:
    if done == total:
        print(f"  {what}: {total} done {note}")


def load_backbone(config: TaskConfig, run: RunFolder) -> Backbone:
    """The base model of the task; it finds the adapters in the run's folder."""
    template = config.chat_template_kwargs
    base, tokenizer = load_model(
        config.model, device=config.device, dtype=config.dtype, chat_template_kwargs=template, progress=show
    )
    return Backbone(
        base, tokenizer, name=config.model, locate=run.adapter_folder, chat_template_kwargs=template, progress=show
    )


class Parts(NamedTuple):
    """What the loop works with."""

    task: Task  # as it fits the model
    run: RunFolder
    model: RetrievingLanguageModel
    retriever: NearestRows
    evaluate: Runner
    classifier: Classifier
    editor: RuleEditor
    trainer: LoraTrainer
    general: GeneralBaseline | None  # what new weights must not forget


def prepare(task_path: Path, folder: Path) -> Parts:
    """Load the model, and measure what the task's rows and general text take."""
    task = load_task(task_path)
    config = task.config
    run = RunFolder.create(folder, config.name, "", task.folder, task.digest)
    backbone, embed = load_backbone(config, run), MiniLm()
    nearest = partial(NearestRows, scorers=task.scorers, embed=embed)
    task = fitted(task, measure(task, backbone.render, backbone.window, nearest))
    retriever = nearest(task.train)
    model = RetrievingLanguageModel(backbone, retriever)
    return Parts(
        task, run, model, retriever,
        evaluate=Runner(task, model, run.prompt, run),
        classifier=Classifier(
            model, task.scorers, task.train, retrieves=True, luck=Luck(task.luck, has_form=bool(config.style))
        ),
        editor=RuleEditor(task.scorers, config.edit, retrieves=True),
        trainer=LoraTrainer(backbone, config.lora, show),
        general=general_baseline(model),
    )  # fmt: skip


def adapt(task_path: Path, folder: Path) -> tuple[Candidate, list[Round]]:
    """The best (prompt, adapter) pair for a task, and the rounds that led to it. Artefacts go into `folder`."""
    parts = prepare(task_path, folder)
    task, run, config, evaluate = parts.task, parts.run, parts.task.config, parts.evaluate
    policy, seed_prompt = make_policy(config), config.prompt.prompt()
    best, rounds = Candidate(prompt=run.save_prompt(seed_prompt)), list[Round]()

    while True:
        number = len(rounds)
        prompt, before = run.prompt(best.prompt), evaluate(best, "validation")
        # observe
        noise = standard_error([score.reward for score in before.scores])
        signal = monitor.observe(
            before, noise, rounds, prompt != seed_prompt, task.shown, task.remade, prompt.shown > 0, task.luck
        )
        diagnosis = parts.classifier.diagnose(before, task.validation, prompt, number)
        # decide
        decision = policy.decide(Briefing(signal, diagnosis, rounds))
        print(f"round {number + 1}: {decision.move.action}. {decision.reason}")
        # act
        if isinstance(decision.move, Stop):
            return best, rounds
        if isinstance(decision.move, EditPrompt):
            turn = config.edit.minibatch * sum(isinstance(row.decision.move, EditPrompt) for row in rounds)
            learned = batch([row.name for row in task.train], turn, config.edit.minibatch, config.seed)
            failures = evaluate(best, "train", learned)
            edits = parts.editor.propose(prompt, failures, task.train, decision.move, number).edits
            quarter = max(1, len(task.validation) // 4)
            compared_on = batch([row.name for row in task.validation], turn, quarter, config.seed)
            score = partial(evaluate.each, split="validation", names=compared_on)
            winner, _ = compare_proposals(edits, prompt, best.adapter, score, run.save_prompt)
            pair = winner and Candidate(prompt=winner.id, adapter=best.adapter)
            trial = Trial(candidate=pair, note="edited", raced=tuple(compared_on))
        else:
            assert isinstance(decision.move, TrainLora), "only a user asks for a rollback"
            trained = prompt.bare if decision.move.bare else prompt
            rows = with_retrieved(training_rows(task, trained, seed_prompt, decision.move), parts.retriever)
            adapter, parent = f"{number + 1:012x}", None if decision.move.fresh else best.adapter
            files = run.adapter_folder(adapter)
            training = parts.trainer.train(
                TrainingJob(adapter=adapter, rows=rows, action=decision.move, folder=files, parent=parent, seed=number)
            )
            pair = Candidate(prompt=run.save_prompt(trained), adapter=adapter)
            trial = Trial(candidate=pair, note="trained", loss=training.epoch_losses[-1], loss_drop=training.loss_drop)
        # judge
        after = evaluate(trial.candidate, "validation") if trial.candidate else before
        verdict = judge(parts, trial, before, after, [row.verdict for row in rounds])
        print(f"  {'kept' if verdict.kept else 'taken back'}: {verdict.reason}")
        kept = after if verdict.kept else before
        best = kept.candidate
        rounds.append(
            Round(number=number + 1, signal=signal, diagnosis=diagnosis, decision=decision, trial=trial,
                  verdict=verdict, best=best, reward=kept.reward, spend=Spend())
        )  # fmt: skip


def judge(parts: Parts, trial: Trial, before: Evaluation, after: Evaluation, earlier: Sequence[Verdict]) -> Verdict:
    """The pair as a whole, paired on the validation rows that did not choose it; new weights must forget little."""
    best, gate_settings = before.candidate, parts.task.config.gate
    old, new = deciding_rows(before, trial.raced), deciding_rows(after, trial.raced)
    alpha = alpha_to_spend(gate_settings.alpha, earlier, least_p(old))

    def likelihood(pair: Evaluation) -> list[float | None]:
        return parts.evaluate.reference_nll(pair.candidate, [score.example for score in pair.scores])

    verdict = gate(old, new, alpha, likelihood)
    if trial.candidate is None or trial.candidate.adapter == best.adapter:
        return verdict
    pairs = {"drift": trial.candidate, "drift_before": best}
    lost = {
        name: drift(parts.model, pair.adapter, parts.general).mean if pair.adapter and parts.general else 0.0
        for name, pair in pairs.items()
    }
    return object_to_forgetting(verdict.model_copy(update=lost), gate_settings)


def training_rows(task: Task, best: Prompt, seed: Prompt, action: TrainLora) -> list[tuple[Prompt, Example]]:
    """Refined rows stand under the prompt they were remade with, original rows under the seed's."""
    remade = None if action.rows == "original" else remake(task.train, best, task.scorers)
    return [(best if row.prompt else seed, row.example) for row in select(task.train, remade, action.rows)]


if __name__ == "__main__":
    task_folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "tasks" / "valley"
    with tempfile.TemporaryDirectory() as folder:
        pair, history = adapt(task_folder, Path(folder))
        print(f"best pair after {len(history)} rounds: {pair}")
