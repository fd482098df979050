"""What decides, diagnoses, trains and edits, made from the services of a run."""

from typing import TYPE_CHECKING

from agent import extensions
from agent.config.task import TaskConfig
from agent.errors import BadInput
from agent.policy.llm_planner import LlmPlanner
from agent.policy.make import make_policy as policy_of
from agent.protocols import Editor, Policy, Trainer

if TYPE_CHECKING:
    from graphs.services.run import RunServices
    from tools.diagnosis.classify import Classifier
    from tools.editing.gepa_editor import GepaEditor
    from tools.editing.textgrad_editor import TextGradEditor


def make_classifier(run: "RunServices") -> "Classifier":
    from tools.diagnosis.classify import Classifier
    from tools.diagnosis.luck import Luck

    task = run.spec
    new = task.config.generation.max_new_tokens
    retrieves = run.embeds and task.config.edit.retrieve > 0
    luck = Luck(task.luck, has_form=bool(task.config.style))
    return Classifier(run.model, task.scorers, task.train, max_new_tokens=new, retrieves=retrieves, luck=luck)


def make_policy(run: "RunServices") -> Policy:
    config = run.spec.config
    if config.plans:
        return LlmPlanner(run.llm.chat("planner"), config, run.memory.experience)
    return policy_of(config, run.memory.experience if config.policy == "learned" else ())


def make_trainer(run: "RunServices") -> Trainer:
    from tools.training.lora import LoraTrainer
    from tools.training.parallel import ParallelTrainer

    if run.spec.config.processes > 1:
        place = run.folder.path / "training"  # not in /tmp, where a killed run would leave rows behind
        return ParallelTrainer(run.backbone, run.spec.config, run.folder.adapter_folder, place, run.progress, run.note)
    return LoraTrainer(run.backbone, run.spec.config.lora, run.progress, note=run.note)


def check_trainer(config: TaskConfig) -> None:
    """Raises BadInput where this machine cannot train by as many processes as the task asks for. Loads no model."""
    if config.processes > 1:
        from tools.training.parallel import check_devices

        check_devices(config.device, config.processes)


def make_editor(run: "RunServices") -> Editor:
    """The rules; before them the LLM, where it is to edit; or the user's own. Raises BadInput: that cannot edit."""
    from tools.editing.rule_editor import CombinedEditor, RuleEditor

    config, textgrad = run.spec.config, run.textgrad
    if make := extensions.editors.get(config.edit.editor):
        editor = make(run.spec.scorers, config.edit)
        if not callable(getattr(editor, "propose", None)):
            raise BadInput(
                f"what is registered as editor {config.edit.editor!r} makes {editor!r}, which has no `propose`"
            )
        return editor
    first = run.folder.baseline()
    recalled = [run.folder.prompt(tried.prompt) for tried in first.recalled[1:]] if first else []
    rules = RuleEditor(run.spec.scorers, config.edit, recalled, retrieves=run.embeds)
    asking = textgrad or run.gepa
    return CombinedEditor(asking, rules, config.edit.proposals) if asking else rules


def make_textgrad(run: "RunServices") -> "TextGradEditor | None":
    task = run.spec
    if task.config.edit.editor != "textgrad":
        return None
    from tools.editing.textgrad_editor import TextGradEditor

    chat = run.llm.chat("editor")
    return TextGradEditor(chat, task.scorers, task.config.edit, run.examples.__getitem__, run.progress)


def make_gepa(run: "RunServices") -> "GepaEditor | None":
    task = run.spec
    if task.config.edit.editor != "gepa":
        return None
    from tools.editing.gepa_editor import GepaEditor

    return GepaEditor(
        run.llm.chat("editor"), task.scorers, task.config.edit, run.examples.__getitem__, run.score_prompt,
        run.leaks.found_in, run.progress,
    )  # fmt: skip
