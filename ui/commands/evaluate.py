"""`nesylora eval`: one prompt, and perhaps an adapter, on a task's validation rows."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from agent.config.scorers import Rated
from agent.config.task import TaskConfig
from agent.errors import BadInput
from agent.protocols import Chat, Rater
from agent.records.evaluation import Evaluation, Measurements
from agent.records.examples import Candidate, Example, Prompt, Split


class Unkept:
    """Keeps nothing: there is no run folder to keep it in."""

    def load(self, candidate: Candidate, split: Split) -> Measurements:
        return Measurements(candidate=candidate, split=split)

    def save(self, measured: Measurements) -> None: ...


def score(task_path: str, prompt_file: Path | None, adapter: Path | None, overrides: list[str], show: int) -> int:
    """Print reward, content and style, and the first answers with what was wrong with them."""
    from eval.runner import Runner
    from eval.tasks.fitting import fitted, measure
    from eval.tasks.task import load_task
    from graphs.services.raters import make_rater
    from graphs.services.shared_model import shared_embedder
    from memory.retrieval import NearestRows
    from tools.adapters.files import check_files
    from tools.model.backbone import Backbone
    from tools.model.loading import load_model
    from tools.model.retrieving import RetrievingLanguageModel
    from ui.terminal.live import LiveView

    def rater(settings: Rated) -> Rater:
        return make_rater(settings, lambda: _judge(config), config.device, view)

    task = load_task(Path(task_path), overrides, rater)
    own_prompt = _read(prompt_file) if prompt_file else None
    if adapter is not None:
        check_files(adapter)
    config = task.config
    with LiveView() as view:
        model, tokenizer = load_model(
            config.model, device=config.device, dtype=config.dtype, spread=config.shard,
            chat_template_kwargs=config.chat_template_kwargs, progress=view,
        )  # fmt: skip
        backbone = Backbone(
            model, tokenizer, name=config.model, locate=lambda _: adapter or Path(), progress=view,
            chat_template_kwargs=config.chat_template_kwargs, batch_size=config.generation.batch_size,
        )  # fmt: skip

        def retriever(train: Sequence[Example]) -> NearestRows:
            return NearestRows(train, task.scorers, shared_embedder())

        task = fitted(task, measure(task, backbone.render, backbone.window, retriever))
        prompt = own_prompt or task.config.prompt.prompt()
        candidate = Candidate(prompt=prompt.id, adapter="given" if adapter else None)
        asked = RetrievingLanguageModel(backbone, retriever(task.train))
        evaluation = Runner(task, asked, lambda _: prompt, Unkept(), whole=True)(candidate, "validation")
    _print(view.console, evaluation, show)
    return 0


def _judge(config: TaskConfig) -> Chat:
    from tools.llm.client import standalone_chat

    assert config.llm is not None, "the configuration demands an llm section wherever a judge is used"
    return standalone_chat(config.llm.of("judge"), "judge", config.budget.usd)


def _read(file: Path) -> Prompt:
    try:
        return Prompt.model_validate_json(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"the prompt {file} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        fault = error.errors()[0]
        place = "".join(f"{part}: " for part in fault["loc"])
        raise BadInput(f"{file} is no prompt: {place}{fault['msg']}") from error


def _print(console: Console, evaluation: Evaluation, show: int) -> None:
    console.print(
        f"joint reward {evaluation.reward:.3f}   content {evaluation.content:.3f}   style {evaluation.style:.3f}   "
        f"({len(evaluation.scores)} validation rows)"
    )
    if evaluation.too_long:
        console.print(f"{evaluation.too_long} rows do not fit into the model's window with this prompt: wrong")
    if not show:
        return
    table = Table("row", "answer", "content", "style", "remarks")
    for row in evaluation.scores[:show]:
        remarks = " ".join(row.faults + row.remarks + row.praise)
        table.add_row(row.example, row.output[:200], f"{row.content:.2f}", f"{row.style:.2f}", remarks)
    console.print(table, markup=False)
