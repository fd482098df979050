"""A seed prompt from elsewhere: another run or bundle, a DSPy program, a result of GEPA."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from agent.config.prompt import SeedPrompt
from agent.errors import BadInput
from agent.records.examples import Demo, Prompt

Values = Mapping[str, object]
TEXTS = (".txt", ".md")


def read_text_or_prompt(given: str, folder: Path, question: str, answer: str) -> SeedPrompt:
    """A system text itself; or the prompt at a path, which starts at `folder`.

    A path is what is there, or looks like one: it begins with ./, ../, ~ or /, or is a word that ends in .json, .txt or
    .md.

    Raises:
        BadInput: as `read_prompt`.
    """
    place = folder / Path(given).expanduser()
    named = given.startswith(("./", "../", "~", "/")) or place.suffix in (".json", *TEXTS)
    if os.path.exists(place) or (named and not any(map(str.isspace, given))):
        return read_prompt(place, question, answer)
    return SeedPrompt(system=given)


def read_prompt(path: Path, question: str, answer: str) -> SeedPrompt:
    """The prompt in a file, or in a bundle's folder. A file of text (.txt, .md) is a system text.

    Of a DSPy program (`program.save("program.json")`): its instructions become the system text, its demos ours;
    how DSPy writes fields around them stays behind. Of GEPA (`result.to_dict()` as JSON): the best candidate.

    Args:
        question, answer: the task's columns; DSPy's demonstrations have fields of these names.

    Raises:
        BadInput: it cannot be read, or holds several prompts, or none.
    """
    file = path / "prompt.json" if path.is_dir() else path
    if path.is_dir() and not file.exists():
        raise BadInput(f"{path} is a folder without a prompt.json{_whose(path)}")
    try:
        text = file.read_text(encoding="utf-8")
        values = {"system": text.strip()} if file.suffix in TEXTS else json.loads(text)
    except (OSError, ValueError) as error:
        raise BadInput(f"the prompt {file} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise BadInput(f"{file} is no JSON object")
    if "candidates" in values and "val_aggregate_scores" in values:
        return SeedPrompt(system=_best_candidate(values, file))
    if predictors := _predictors(values):
        return _of_dspy(predictors, file, question, answer)
    try:
        prompt = Prompt.model_validate(values)
        return SeedPrompt.model_validate(prompt.model_dump())
    except ValidationError as error:
        fault = error.errors()[0]
        raise BadInput(
            f"{file} is no prompt of NeSyLoRA, no DSPy program and no GEPA result: "
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
        ) from error


def _whose(folder: Path) -> str:
    """What other programs leave in a folder, and which file to take instead."""
    if (folder / "program.pkl").exists():
        return ': DSPy saved a whole program there, as a pickle; save its state: program.save("program.json")'
    if (folder / "gepa_state.bin").exists():
        return ": it is a run of GEPA; write its result: json.dump(result.to_dict(), open('result.json', 'w'))"
    return ""


def _best_candidate(values: Values, file: Path) -> str:
    """The text of GEPA's best candidate: of equal ones the first, as GEPA takes it."""
    candidates, scores = values["candidates"], values["val_aggregate_scores"]
    if not isinstance(candidates, list) or not isinstance(scores, list) or len(candidates) != len(scores) or not scores:
        raise BadInput(f"{file}: `candidates` and `val_aggregate_scores` of this GEPA result do not belong together")
    best = candidates[scores.index(max(scores))]
    texts = list(best.values()) if isinstance(best, dict) else [best]
    if len(texts) != 1 or not isinstance(texts[0], str):
        raise BadInput(
            f"{file}: the best candidate has {len(texts)} parts, and a prompt has one system text: write the part you "
            "mean into prompt.system"
        )
    return texts[0]


def _predictors(values: Values) -> dict[str, Values]:
    """Of a DSPy program, by name; a bare predictor is saved without one."""
    if "signature" in values:
        return {"self": values}
    return {name: part for name, part in values.items() if isinstance(part, dict) and "signature" in part}


def _of_dspy(predictors: Mapping[str, Values], file: Path, question: str, answer: str) -> SeedPrompt:
    if len(predictors) != 1:
        raise BadInput(
            f"{file} is a DSPy program of {len(predictors)} predictors ({', '.join(predictors)}), and a task has one "
            "prompt: save the one you mean by itself"
        )
    [predictor] = predictors.values()
    signature, rows = predictor["signature"], predictor.get("demos")
    instructions = signature.get("instructions", "") if isinstance(signature, dict) else ""
    demos = [_demo(row, file, question, answer) for row in rows] if isinstance(rows, list) else []
    return SeedPrompt(system=str(instructions), demos=tuple(demos))


def _demo(row: object, file: Path, question: str, answer: str) -> Demo:
    fields = row if isinstance(row, dict) else {}
    if question not in fields or answer not in fields:
        raise BadInput(
            f"{file}: a demonstration has the fields {', '.join(fields)}, and the task's columns are {question} and "
            f"{answer}: rename them, or name those columns in data.question and data.answer"
        )
    return Demo(question=str(fields[question]), answer=str(fields[answer]))
