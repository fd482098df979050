"""What /help says of all commands, and of one."""

import pytest

from agent.errors import BadInput
from graphs.conversation.commands import COMMANDS
from ui.talk.manual import SETTINGS, about


def said(command: str) -> list[str]:
    return [line.text for line in about(command)]


def test_all_commands_or_one_by_any_of_its_names() -> None:
    assert [text.split()[0] for text in said("")] == [command.name for command in COMMANDS]
    assert said("extend") == said("/set") == said("/SET")
    assert said("undo") == ["/undo", "  back to the pair before the last change that was kept: a round of its own"]
    with pytest.raises(BadInput, match=r"There is no command /tarin; did you mean /train\?"):
        said("tarin")


def test_every_setting_of_a_command_with_what_it_takes_and_means() -> None:
    for command, model in SETTINGS.items():
        names = [text.split()[0] for text in said(command)[3:]]
        assert names == [name for name in model.model_fields if name not in ("action", "instruction")]
    train, edit, limits = ("\n".join(said(command)) for command in ("train", "edit", "set"))
    assert "epochs (a whole number from 1 to 20): at most; fewer once the rows are learned" in train
    assert "rows (original or refined or both): which train rows" in train and "bare (true or false): true: " in train
    assert "or settings, as /edit parts=system,demos:" in edit
    assert "parts (some of system,demos,questions,retrieval): what to rewrite" in edit
    assert "minutes (a number above 0): of work" in limits and "+2: two more" in limits
