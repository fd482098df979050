"""The prompt of a chat on a terminal: history, completion, several lines, and a status line below."""

from collections.abc import Callable, Iterable, Iterator

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import HTML
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.styles import Style

from agent.records.actions import TrainLora
from agent.records.limits import Limits
from graphs.conversation.commands import BY_NAME, COMMANDS
from ui.wording import PARTS

SETTINGS = {
    "/train": [f"{name}=" for name in TrainLora.model_fields if name != "action"],
    "/edit": ["parts=", "failures="],
    "/set": [f"{name}=" for name in Limits.model_fields],
}
VALUES = {
    "rows=": ["original", "refined", "both"], "fresh=": ["true", "false"], "bare=": ["true", "false"],
    "failures=": ["any", "content", "style"],
    "parts=": list(PARTS),
}  # fmt: skip
OF_ROUNDS = ("/why", "/rollback", "/compare")
STYLE = Style.from_dict({"bottom-toolbar": "noreverse", "bottom-toolbar.text": ""})
CONTINUES = "… "


class Commands(Completer):
    """Completes commands, their settings and the values of these, and the numbers of rounds.

    Args:
        rounds: how many there have been.
    """

    def __init__(self, rounds: Callable[[], int]) -> None:
        self._rounds = rounds

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        line = document.text_before_cursor
        name, space, _ = line.partition(" ")
        if not line.startswith("/"):
            return
        if not space:
            for command in COMMANDS:
                if command.name.startswith(name.lower()):
                    yield Completion(
                        f"{command.name} " if command.takes else command.name, -len(name), command.name,
                        display_meta=command.about,
                    )  # fmt: skip
        elif name in BY_NAME:
            word = document.get_word_before_cursor(WORD=True)
            for text in self._after(name, word):
                yield Completion(text, -len(word))

    def _after(self, name: str, word: str) -> Iterator[str]:
        if name in OF_ROUNDS:
            numbers = map(str, range(1 if name == "/why" else 0, self._rounds() + 1))
            yield from (number for number in numbers if number.startswith(word))
        setting, equals, value = word.partition("=")
        if equals:
            done, comma, last = value.rpartition(",")
            allowed = VALUES.get(f"{setting}=", [])
            yield from (f"{setting}={done}{comma}{one}" for one in allowed if one.startswith(last))
        else:
            yield from (text for text in SETTINGS.get(name, []) if text.startswith(word))


def keys() -> KeyBindings:
    """Enter sends; Alt-Enter, or Escape and Enter, begins a new line."""
    bindings = KeyBindings()

    @bindings.add("enter")
    def _send(event: KeyPressEvent) -> None:
        state = event.current_buffer.complete_state
        if state and state.current_completion:
            event.current_buffer.apply_completion(state.current_completion)
        else:
            event.current_buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    @bindings.add("escape", "c-j")  # as Enter comes when it was typed before the prompt stood
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings


def prompt_session(rounds: Callable[[], int], toolbar: Callable[[], str]) -> PromptSession[str]:
    """The prompt.

    Args:
        rounds: how many there have been.
        toolbar: the status line; asked whenever the screen is drawn.
    """
    return PromptSession(
        "> ", history=_history(), completer=Commands(rounds), complete_while_typing=False, multiline=True,
        key_bindings=keys(), bottom_toolbar=lambda: HTML("{}").format(toolbar()), style=STYLE,
        prompt_continuation=CONTINUES, enable_history_search=True,
    )  # fmt: skip


def _history() -> FileHistory | InMemoryHistory:
    """In the user's state folder, for all runs; only of this session where that cannot be written."""
    from platformdirs import user_state_path

    try:
        folder = user_state_path("nesylora", ensure_exists=True)
        (folder / "chat-history").touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return FileHistory(folder / "chat-history")
