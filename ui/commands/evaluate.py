"""`nesylora eval`: one prompt, and perhaps an adapter, on a task's validation rows."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from agent.config.generation import require_weights
from agent.errors import BadInput, NesyLoraError, OutOfBudget
from agent.records.evaluation import Evaluation, Measurements
from agent.records.examples import Candidate, Prompt, Split
from graphs.services.brake import UnderWay
from graphs.services.shared_engine import LOG
from memory.run.folder import RunFolder
from ui import wording

GIVEN = "0" * 12  # what the adapter is called here


class GivenAdapter(RunFolder):
    """A run folder whose adapter lies elsewhere: a server that answers may see it there alone."""

    adapter = Path()

    def adapter_folder(self, id: str) -> Path:
        return self.adapter


class Unkept:
    """Keeps nothing: the run folder is gone afterwards."""

    def load(self, candidate: Candidate, split: Split) -> Measurements:
        return Measurements(candidate=candidate, split=split)

    def save(self, measured: Measurements) -> None: ...


def score(task_path: str, prompt_file: Path | None, adapter: Path | None, overrides: list[str], show: int) -> int:
    """Print reward, content and style, and the first answers with what was wrong with them.

    They are what a run of the task would measure: by its engine, its judge and its few-shot examples.
    """
    from eval.runner import Runner
    from graphs.context import Context, new_run
    from graphs.services.run import RunServices
    from tools.adapters.files import check_files
    from ui.terminal.live import LiveView

    own_prompt = _read(prompt_file) if prompt_file else None
    with LiveView() as view, _folder() as place:
        services = RunServices(Context(listener=view))
        services.folder = GivenAdapter(new_run(Path(task_path), overrides, place).path)
        if adapter is not None:
            require_weights(services.spec.config, f"The adapter {adapter}")
            check_files(adapter)
            services.folder.adapter = adapter
        with services.locked():  # as a run: what is paid for counts, and an engine is let go
            services.under_way = UnderWay(node="judge")  # which a used-up budget breaks off
            services.fit_rows()
            prompt = own_prompt or services.spec.config.prompt.prompt()
            candidate = Candidate(prompt=prompt.id, adapter=GIVEN if adapter else None)
            runner = Runner(services.spec, services.model, lambda _: prompt, Unkept(), whole=True)
            try:
                evaluation = runner(candidate, "validation")
            except OutOfBudget as error:
                raise NesyLoraError(f"{error} Not all rows are answered, so there is no score.") from error
            paid = services.llm.budget.spend
    _print(view.console, evaluation, show)
    if paid.llm_tokens:
        view.console.print(f"{paid.llm_tokens:,} tokens of hosted models, {wording.money(paid.usd)}")
    return 0


@contextmanager
def _folder() -> Iterator[Path]:
    """For a run that is not kept. After an error the log of an engine stays, since its message names it."""
    folder = Path(mkdtemp(prefix="nesylora-eval-"))
    try:
        yield folder
    except BaseException:
        if not any(folder.glob(f"*/{LOG}")):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


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
