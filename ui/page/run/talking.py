"""The conversation beside a run: `ui.talk`, a sentence at a time."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Form
from fastapi.responses import HTMLResponse

from agent.config.llm import Llm
from agent.errors import Busy, NesyLoraError
from graphs.control.anybody import Anybody
from graphs.conversation.phrases import understood
from memory.run.folder import RunFolder
from ui.page.place import Here, Place, Run, task_of
from ui.page.rendering import partial, text
from ui.page.run.turns import Turn, keep
from ui.talk.inquiries import try_pairs
from ui.talk.lines import Line, line
from ui.talk.talk import Talk

router = APIRouter(prefix="/runs/{name}", tags=["orders"])
MOST_TALKS = 32  # that are kept though they ask nothing


@router.post("/say", summary="Say something to the run")
def say(
    run: Run, place: Here, said: Annotated[str, Form(min_length=1, max_length=4000)],
    seen: Annotated[str, Form(max_length=100)] = "", to: Annotated[str, Form(max_length=10_000)] = "",
) -> HTMLResponse:  # fmt: skip
    """What was said and what was answered, which the events bring to every browser.

    `seen` marks the plan that the page shows; `to` is the question of the conversation that is answered, if one is.
    """
    heard: list[Line] = []
    conversation = _conversation(run, place)
    try:
        with conversation.turn:  # two browsers may speak at a time, and each is to get its own answer
            hear(conversation.talk, said, seen, heard.append, to)
    except NesyLoraError as error:
        heard.append(line(str(error), "fault"))
    turn = Turn(said=said, heard=tuple(heard), seen=conversation.talk.seen)
    shown = text("turn.html.j2", run=run, turn=turn, asked=conversation.talk.asks)
    try:
        keep(run, turn)
    except NesyLoraError:  # the disk is full: it stands in this browser alone
        return HTMLResponse(partial("#feed", shown, "beforeend"))
    return HTMLResponse(shown)


@router.post("/try", summary="Ask the model of the pair that stands now")
def try_model(run: Run, place: Here, question: Annotated[str, Form(min_length=1, max_length=2000)]) -> HTMLResponse:
    """Its answer, beside those of the bare base with the seed prompt and of the best pair, where that is another."""
    answers = try_pairs(Anybody(run, place.steers), run, question)
    return HTMLResponse(text("tried.html.j2", question=question, answers=answers))


def hear(talk: Talk, said: str, seen: str, show: Callable[[Line], None], to: str = "") -> None:
    """Have done what a user says, in a command or in words; with the task's LLM, if it has one and is needed.

    Args:
        seen: the mark of the plan that stood before the user.
        to: the question of the conversation that this answers; empty where it answers none.
    """
    command = understood(said.strip())
    if command == "/quit":
        show(line("Just close the page; the run goes on, or waits. /finish ends it."))
        return
    talk.say = show
    talk.saw(seen)
    settings, asked = task_of(talk.folder).llm, talk.llm_asks
    with ExitStack() as stack:
        if settings and (command is None or talk.needs_llm):
            _listen(talk, settings, stack, needed=command is None or talk.llm_asks)
        # From before this server was started: the answer cannot have been to it.
        new = talk.llm_asks and not asked and not to
        if to and talk.asks != to:  # else a yes would approve the plan that waits
            show(line("That is not asked any more; nothing was done.", "fault"))
        elif not (new and command and command.split()[0] in ("/approve", "/reject")):
            talk.hear(said)


def _listen(talk: Talk, settings: Llm, stack: ExitStack, needed: bool) -> None:
    """Until the stack is left. Where another conversation has the LLM, commands and short sentences still work."""
    from ui.talk.llm import listening

    limits, show = talk.run.status().limits, talk.say
    try:
        listener = stack.enter_context(listening(talk.folder, settings, limits, lambda note: show(line(note))))
    except Busy as error:
        if needed:
            show(line(f"Plain language is off: {error}", "fault"))
        return
    stack.callback(talk.listen, None)
    talk.listen(listener)


class Conversation(NamedTuple):
    """A run's, which all browsers share. `turn` is held while it answers."""

    talk: Talk
    turn: Lock


def asked_now(run: RunFolder, place: Place) -> str:
    """The question of the conversation's own that stands; empty if none does."""
    return _conversation(run, place).talk.asks


def _conversation(run: RunFolder, place: Place) -> Conversation:
    """All that it keeps is a question of its own, such as "did you mean"; a restart of the server forgets that."""
    key = run.path, run.about.created, place  # the run's folder may be opened again meanwhile
    with _kept:
        found = _conversations.pop(key, None)
        if found is None:
            idle = [other for other, known in _conversations.items() if not (known.turn.locked() or known.talk.asks)]
            for old in idle[: max(0, len(idle) + 1 - MOST_TALKS)]:
                del _conversations[old]
            found = Conversation(Talk(Anybody(run, place.steers), run, lambda _: None, by_worker=True), Lock())
        _conversations[key] = found  # at the end: used last
        return found


_kept = Lock()
_conversations: dict[tuple[Path, str, Place], Conversation] = {}
