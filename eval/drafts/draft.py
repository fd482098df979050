"""The drafted task of a file of rows: read, divided, scored and explained. No model is loaded."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agent.config.data import Data
from agent.errors import BadInput
from agent.records.examples import Example, Split
from eval.commonest import commonest_answer
from eval.drafts.answers import FEW, Scoring, propose_scoring, scoring_of_kind
from eval.drafts.columns import Reading, read_columns
from eval.drafts.parts import LEAST, MOST, Divided, divide
from eval.drafts.records import DraftOptions, TaskDraft, plain_name
from eval.drafts.text import task_text
from eval.tasks.rows import read_examples
from eval.tasks.sources import read_file
from eval.tasks.task import load_task

FEW_ROWS = 16  # validation rows, below which only large gains can be told from chance
ANY_NAME = ("train", "training", "data", "rows", "test")
LONG = 512  # new tokens, beyond which the draft does not go by itself


def propose(path: Path, options: DraftOptions) -> TaskDraft:
    """The task that fits these rows, loaded once to be sure that it works.

    Raises:
        BadInput: the file cannot be read, its columns cannot be told apart, or there are too few rows.
    """
    table = read_file(path)
    if not table.rows:
        raise BadInput(f"{path}: there are no rows in it")
    if not any(row.values for row in table.rows):
        read_examples(table, Data(path=str(path), skip_invalid=True), "train")  # says what is wrong with each
    reading = read_columns(table, options)
    examples, read_warnings = read_examples(reading.table, reading.data, "train")
    scoring = propose_scoring([row.answer for row in examples])
    scoring = scoring_of_kind(options.content, scoring) if options.content else scoring
    divided = divide(examples, by_answer=bool(scoring.labels) or scoring.kind == "choice")
    if divided.questions < LEAST:
        raise BadInput(
            f"{path}: {divided.questions} different questions in {len(examples)} usable rows; at least {LEAST} are "
            "needed, and a hundred or more are better, since a part of them is held out to measure on"
        )
    draft = _draft(path, options, reading, scoring, divided, len(table.rows))
    return _checked(draft, options, read_warnings, [row.answer for row in examples])


def _draft(
    path: Path, options: DraftOptions, reading: Reading, scoring: Scoring, divided: Divided, found: int
) -> TaskDraft:
    """Without its text, and with a target that does not know the commonest answer yet."""
    counts = {split: len(rows) for split, rows in divided.parts.items()}
    rounds, minutes = options.rounds, options.minutes
    system, why_system = _system(options, reading, scoring, divided.parts["train"])
    names = list(dict.fromkeys(name for row in reading.table.rows if row.values for name in row.values))
    chats = "messages" in reading.columns
    return TaskDraft(
        name=plain_name(options.name) or _name(path),
        source=path.name,
        format=reading.format,
        found=found,
        columns=reading.columns,
        unused=() if chats else tuple(name for name in names if name not in reading.columns.values()),
        counts=counts,
        model=options.model,
        system=system,
        content=(scoring.content,),
        style=tuple(scorer for scorer, _ in scoring.style),
        target=options.target or scoring.plausible,
        rounds=6 if rounds is None else rounds,
        minutes=minutes or _minutes(divided.parts),
        why={
            "columns": _why_columns(reading),
            "splits": _why_splits(divided),
            "system": why_system,
            "content": _sentence(scoring.why),
            "style": " ".join(_sentence(f"{scorer['kind']}: {reason}") for scorer, reason in scoring.style)
            or "Nothing in the answers asks for a form.",
            "budget": "Limits, not estimates: the run ends when the target is reached, or nothing helps any more.",
        },
        yaml="",
        rows={
            split: tuple(_row(row, scoring.prefix, chats) for row in rows) for split, rows in divided.parts.items()
        },
    )  # fmt: skip


def _checked(draft: TaskDraft, options: DraftOptions, warnings: Sequence[str], answers: Sequence[str]) -> TaskDraft:
    """The draft with its text, its target, and the warnings that a run of it will give."""
    tokens, epochs = _tokens(answers, draft), _epochs(draft.counts["train"])

    def written(draft: TaskDraft) -> TaskDraft:
        return draft.model_copy(update={"yaml": task_text(draft, tokens, epochs)})

    draft = written(draft.model_copy(update={"why": draft.why | {"target": ""}}))
    with TemporaryDirectory(prefix="nesylora-draft-") as folder:
        task = load_task(draft.write(Path(folder)))
    common = commonest_answer(task, "validation")
    target, why_target = _target(draft, common.reward, common.answer, options)
    held_out = draft.counts["validation"]
    few = [f"{held_out} validation rows: only large gains can be told from chance"] if held_out < FEW_ROWS else []
    if tokens == LONG:
        few.append(f"the longest answers may need more than {LONG} new tokens; see generation.max_new_tokens")
    update = {
        "target": target, "commonest": common.reward, "why": draft.why | {"target": why_target},
        "warnings": (*warnings, *task.warnings, *few),
    }  # fmt: skip
    return written(draft.model_copy(update=update))


# --- the parts -------------------------------------------------------------------------------------


def _system(options: DraftOptions, reading: Reading, scoring: Scoring, train: Sequence[Example]) -> tuple[str, str]:
    """The seed prompt's system text, and where it comes from."""
    own = {row.system for row in train}
    if options.system:
        return options.system, "The seed prompt, as you gave it; the agent rewrites it where that helps."
    if reading.system:
        return reading.system, "The instruction that all rows share; the agent rewrites it where that helps."
    if own != {""}:
        shared = own.pop() if len(own) == 1 else ""
        return shared, (
            "The system message that all rows share; the agent rewrites it where that helps."
            if shared
            else "Rows have system messages of their own, which follow this one."
        )
    if scoring.labels and len(scoring.labels) <= FEW:
        names = ", ".join(sorted(scoring.labels, key=str.casefold))
        return f"Answer with one of these: {names}.", "The seed prompt names the labels. Say here what each is for."
    form = {"json_fields": "Answer with a JSON object.", "choice": "Answer with the letter of the right option."}
    text = form.get(
        scoring.kind, "Answer the question." if reading.format.startswith("columns") else "Follow the instruction."
    )
    return text, "The seed prompt, from which the run starts. Say here what you would tell a person."


def _target(draft: TaskDraft, commonest: float | None, answer: str, options: DraftOptions) -> tuple[float, str]:
    """The target, and why it is that."""
    guess = ""
    if commonest:  # 0: the commonest answer stands once, and says nothing of the others
        shown = " ".join(answer.split())
        shown = f"'{shown[:40]}…'" if len(shown) > 40 else f"'{shown}'"
        guess = f"Always saying {shown} would earn {commonest:.2f} on the validation rows. "
    if options.target:
        return options.target, f"{guess}The target is yours."
    plausible = draft.target
    target = plausible if commonest is None else max(plausible, (1 + commonest) / 2)
    target = min(0.95, round(target * 20) / 20)
    kind = draft.content[0]["kind"]
    reason = f"{target:g} is a guess for `{kind}` scores; take what would be of use to you."
    return target, f"{guess}{reason} At this validation reward the run ends."


def _why_columns(reading: Reading) -> str:
    told = ", ".join(f"{role} from '{column}'" for role, column in reading.columns.items())
    return f"{told[0].upper()}{told[1:]}." + ("" if reading.sure else " That is a guess: the names do not say it.")


def _why_splits(divided: Divided) -> str:
    repeats = f" {divided.repeats} exact repeats were left out." if divided.repeats else ""
    largest = f", and at most {MOST} rows" if len(divided.parts["validation"]) >= MOST else ""
    return (
        f"Train rows give gradients and examples, validation rows decide, test rows are opened once, at the end. A "
        f"fifth is validation and a fifth test{largest}; rows that ask the same stand in one split.{repeats}"
    )


def _row(row: Example, prefix: str, chats: bool) -> dict[str, Any]:
    """A line of a split's file. `row` is where it stood in the user's file."""
    place, answer = int(row.name.partition(":")[2]), row.answer.strip().removeprefix(prefix) if prefix else row.answer
    if not chats:
        return {"question": row.question, "answer": answer, "row": place}
    system = [{"role": "system", "content": row.system}] if row.system else []
    turns = [{"role": turn.role, "content": turn.content} for turn in row.turns]
    last = [{"role": "user", "content": row.question}, {"role": "assistant", "content": answer}]
    return {"messages": [*system, *turns, *last], "row": place}


def _tokens(answers: Sequence[str], draft: TaskDraft) -> int:
    """Room for the longest answer, at three bytes a token and half as much again."""
    forms = sum(len(str(scorer.get("text", ""))) for scorer in draft.style)
    longest = max(len(answer.encode()) for answer in answers) + forms
    least = 32 if draft.content[0]["kind"] in ("number", "choice") else 16  # models say a sentence around these
    return min(LONG, max(least, 8 * -(-longest // 16)))


def _epochs(train: int) -> int:
    return 10 if train < 60 else 6 if train < 300 else 3


def _minutes(parts: dict[Split, tuple[Example, ...]]) -> float:
    """An hour; more where there is more text than a small model reads in that time on two cores."""
    letters = sum(len(row.question) + len(row.answer) for rows in parts.values() for row in rows)
    return 60 if letters < 1_000_000 else 480


def _name(path: Path) -> str:
    """The file's, or its folder's where the file is called as most are."""
    stem = path.resolve().parent.name if path.stem.casefold() in ANY_NAME else path.stem
    return plain_name(stem) or "task"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
