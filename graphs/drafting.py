"""A task drafted from a file of rows, and, if asked, five of its rows tried with the model."""

from pathlib import Path
from tempfile import TemporaryDirectory

from agent.errors import BadInput
from agent.protocols import Progress
from agent.records.examples import Example
from eval.drafts.draft import propose
from eval.drafts.records import DraftOptions, TaskDraft, TriedRow

TRIED = 5  # train rows


def draft_task(
    rows: Path, options: DraftOptions | None = None, *, tried: int = 0, progress: Progress | None = None
) -> TaskDraft:
    """Look at a file of rows, and propose a task: columns, splits, scorers, seed prompt, target and budget.

    Reads OpenAI chats, ShareGPT, Alpaca rows, and columns, from .jsonl, .json, .csv, .tsv and .parquet. Nothing is
    written; see `TaskDraft.write`.

    Args:
        options: what is settled already.
        tried: so many train rows are answered by the model with the seed prompt, which loads it; 0: none.
        progress: is told how far loading and answering are.

    Raises:
        BadInput: the file or the model cannot be used; says why, and the way out.
    """
    from tools.model.availability import check_model

    options = options or DraftOptions()
    if options.model.startswith((".", "~")):  # a task's paths start at its folder, and this one starts here
        options = options.model_copy(update={"model": str(Path(options.model).expanduser().resolve())})
    try:
        check_model(options.model)
    except BadInput as error:
        raise BadInput(f"model: {error}") from error
    draft = propose(rows, options)
    return try_rows(draft, tried, progress) if tried else draft


def try_rows(draft: TaskDraft, count: int = TRIED, progress: Progress | None = None) -> TaskDraft:
    """The draft with what its model answers to the first train rows under the seed prompt. Loads the model."""
    from eval.tasks.task import load_task
    from graphs.context import Silent
    from graphs.services.shared_model import shared_backbone

    with TemporaryDirectory(prefix="nesylora-draft-") as folder:
        task = load_task(draft.write(Path(folder)))
        model = shared_backbone(
            task.config, Path(folder).joinpath, progress or Silent(), charge=lambda _: None, remark=lambda _: None
        )
    shown: list[Example] = list(task.train[:count])
    outputs, _ = model.generate(
        task.config.prompt.prompt(), shown, adapter=None, max_new_tokens=task.config.generation.max_new_tokens
    )
    scores = task.scorers.score_all([(row, output or "") for row, output in zip(shown, outputs, strict=True)])
    tried = [
        TriedRow(
            question=row.question,
            wanted=task.scorers.show(row.answer),
            output=score.output if output is not None else "",
            content=score.content,
            style=score.style,
            remarks=(*score.faults, *score.remarks)
            if output is not None
            else ("The question is too long for the model's window.",),
        )
        for row, output, score in zip(shown, outputs, scores, strict=True)
    ]
    return draft.model_copy(update={"tried": tuple(tried)})
