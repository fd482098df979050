"""What a run's best pair is asked by users: its prompt around a new question, as chat messages for any server."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from agent.errors import BadInput
from agent.records.examples import Candidate, Example, Turn
from graphs.context import Context
from graphs.services.run import RunServices
from memory.run.folder import RunFolder


def messages(run: Path, question: str, history: Sequence[Mapping[str, str]] = ()) -> list[dict[str, str]]:
    """The best pair's prompt around a question, with what it retrieves for it, in OpenAI's form.

    The first call for a run whose prompt retrieves reads the task's train rows and embeds them; later calls in this
    process embed the question only.

    Args:
        run: its folder.
        history: earlier turns, oldest first, in the same form.

    Raises:
        BadInput: there is no such run, nothing was measured in it yet, its task's rows have changed, or a turn is
            neither the user's nor the assistant's.
        NesyLoraError: the prompt retrieves, and texts cannot be embedded here.
    """
    from tools.model.chat_template import Renderer

    try:
        turns = tuple(Turn.model_validate(turn) for turn in history)
    except ValidationError as error:
        fault = error.errors()[0]
        raise BadInput(f"history: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error
    folder = RunFolder.open(run)
    prompt = folder.prompt(_best(folder).prompt)
    example = Example(name="user:1", question=question, answer="", turns=turns)
    if prompt.retrieval:
        prompt, [example] = _services(folder.path).retriever.resolved(prompt, [example])
    return Renderer.messages(prompt, example)


@lru_cache(maxsize=4)
def _services(run: Path) -> RunServices:
    """Of a run that is only read: its train rows and their vectors are kept from call to call."""
    return RunServices(Context(run=str(run)))


def _best(folder: RunFolder) -> Candidate:
    """The best pair so far."""
    outcome, rounds, baseline = folder.outcome(), folder.rounds(), folder.baseline()
    last = outcome or (rounds[-1] if rounds else baseline)
    if last is None:
        raise BadInput(f"Nothing was measured yet in run {folder.path}: start it, or go on with nesylora resume.")
    return last.best
