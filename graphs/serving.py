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

    example = asked(question, history)
    folder = RunFolder.open(run)
    prompt = folder.prompt(best_pair(folder).prompt)
    if prompt.retrieval:
        prompt, [example] = _services(folder.path).retriever.resolved(prompt, [example])
    return Renderer.messages(prompt, example)


def generate(run: Path, questions: Sequence[str]) -> list[str]:
    """The greedy answers of a run's best pair to new questions, in order; "" to one beyond the model's window.

    The model stays loaded for the next call of this process.

    Raises:
        BadInput: as `messages`; or the model or the adapter cannot be loaded.
    """
    services = _services(run.resolve())
    best = best_pair(services.folder)
    rows = [asked(question) for question in questions]
    new = services.spec.config.generation.max_new_tokens
    try:
        texts, _ = services.model.generate(
            services.folder.prompt(best.prompt), rows, adapter=best.adapter, max_new_tokens=new
        )
    finally:
        services.let_engine_go()
    return [text or "" for text in texts]


def asked(question: str, history: Sequence[Mapping[str, str]] = ()) -> Example:
    """A user's question as an example.

    Raises:
        BadInput: a turn is neither the user's nor the assistant's.
    """
    try:
        turns = tuple(Turn.model_validate(turn) for turn in history)
    except ValidationError as error:
        fault = error.errors()[0]
        raise BadInput(f"history: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error
    return Example(name="user:1", question=question, answer="", turns=turns)


@lru_cache(maxsize=4)
def _services(run: Path) -> RunServices:
    """Of a run that is only read: its train rows and their vectors are kept from call to call."""
    return RunServices(Context(run=str(run)))


def best_pair(folder: RunFolder) -> Candidate:
    """The best pair so far. Raises BadInput: nothing was measured yet."""
    outcome, rounds, baseline = folder.outcome(), folder.rounds(), folder.baseline()
    last = outcome or (rounds[-1] if rounds else baseline)
    if last is None:
        raise BadInput(f"Nothing was measured yet in run {folder.path}: start it, or go on with nesylora resume.")
    return last.best
