"""docs/extending.md tells the truth: its examples are registered, named in a task, and run."""

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import nesylora
from agent import extensions, registry
from agent.config.base import Settings, StyleSettings
from agent.config.task import TaskConfig
from agent.errors import BadInput, ExtensionFailed, LlmUnavailable
from agent.policy.make import make_policy
from agent.protocols import Briefing
from agent.records.actions import TrainLora
from agent.records.edits import Edits
from eval.tasks.task import load_config, load_task
from graphs.context import Context, new_run
from graphs.services.run import RunServices
from graphs.session import open_session
from memory.run.folder import RunFolder
from tests.fixtures.command_line import run as run_command
from tests.fixtures.learnable import TinyTask
from ui.commands.doctor import checks

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


EXAMPLES = list(zip(blocks("python"), [yaml.safe_load(text) for text in blocks("yaml")], strict=True))
SETTINGS = {key: value for _, settings in EXAMPLES for key, value in settings.items()}


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is registered before a test, nor after it."""
    yield
    for found in extensions.REGISTRIES.values():
        for name in found.names():
            found.remove(name)


def module(name: str, code: str, folder: Path) -> ModuleType:
    """Code as an imported module, so that its source can be read."""
    (folder / f"{name}.py").write_text(code)
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


@pytest.fixture
def examples(tmp_path: Path) -> list[ModuleType]:
    return [module(f"example_{number}", code, tmp_path) for number, (code, _) in enumerate(EXAMPLES)]


def test_each_of_its_examples_is_short_and_one_of_a_kind() -> None:
    assert [list(settings) for _, settings in EXAMPLES] == [["content"], ["style"], ["edit"], ["policy"]]
    assert all(len([line for line in code.splitlines() if line.strip()]) <= 16 for code, _ in EXAMPLES)
    assert all(compile(code, "extending.md", "exec") for code in blocks("py"))


def test_a_run_scores_edits_and_decides_by_them(
    examples: list[ModuleType], tiny_task: TinyTask, tmp_path: Path, capsys: Any
) -> None:
    task = tiny_task(**SETTINGS)
    loaded = load_task(task)
    row, scorers = loaded.train[0], loaded.scorers
    assert scorers.show(row.answer) == f"{row.answer}, please"
    assert scorers.faults(row.answer) == ('The answer must say "please".',) and scorers.instructions() == (
        "Say please.",
    )
    assert scorers.score(row, "Please, xyzskzan").content == 1.0 and scorers.score(row, "Heskza").content == 0.0
    assert scorers.describe().startswith("Wanted: the answer's last letters.")

    run = RunFolder.open(nesylora.adapt(task, overrides=["budget.rounds=2"], runs=tmp_path / "runs").run)
    decisions = [row.decision for row in run.rounds()]
    assert [(decision.by, decision.policy) for decision in decisions] == [("custom", "style-first")] * 2
    assert "Decided by the policy style-first." in run.report_md.read_text()
    assert [row.decision.move.action for row in run.rounds()] == ["edit_prompt", "train_lora"]
    [edit, *_] = [proposal for proposal in run.rounds()[0].trial.proposals if proposal.note == "all instructions"]
    assert run.prompt(edit.prompt).system.endswith("Say please.")
    assert "example_0" in run.about.extensions["content scorer ends_like"] and len(run.about.extensions) == 4
    assert TaskConfig.model_validate(yaml.safe_load(run.task_file.read_text())).content == loaded.config.content

    lines = [line for good, line in checks(tmp_path) if good]
    assert any(line.startswith("content scorer ends_like: registered from Python") for line in lines)


def test_a_policy_ends_where_all_have_to(examples: list[ModuleType], tiny_task: TinyTask, tmp_path: Path) -> None:
    config = load_config(tiny_task(policy="style-first", planner="llm", llm={"model": "m"}))
    assert make_policy(config).name == "style-first"
    assert config.observes and not config.plans


def test_a_policy_that_decides_nothing_is_named(tiny_task: TinyTask, tmp_path: Path) -> None:
    class Silent:
        name = "silent"

        def decide(self, briefing: Briefing) -> Any:
            return TrainLora()

    extensions.register_policy("silent")(lambda config: Silent())
    with pytest.raises(BadInput, match="'silent' returned a TrainLora and no Decision: write Decision"):
        nesylora.adapt(tiny_task(policy="silent", budget={"rounds": 1}), runs=tmp_path / "runs")


@pytest.mark.parametrize(
    ("register", "settings", "fault"),
    [
        (lambda: extensions.register_policy("odd")(lambda config: 3), {"policy": "odd"}, "'odd' makes 3.*no `decide`"),
        (
            lambda: extensions.register_editor("odd")(lambda scorers, settings: 3),
            {"edit": {"editor": "odd"}, "policy": "prompt-only"}, "'odd' makes 3.*no `propose`",
        ),
        (
            lambda: extensions.register_style("odd", instruction="Be odd.")(lambda output, settings: True),
            {"style": [{"kind": "odd"}]}, "style scorer 'odd' gave True",
        ),
        (
            lambda: extensions.register_scorer("odd")(lambda output, answer, settings: "1"),
            {"content": [{"kind": "odd"}]}, "content scorer 'odd' gave '1'",
        ),
    ],
)  # fmt: skip
def test_an_extension_that_makes_something_else_is_named(
    tiny_task: TinyTask, tmp_path: Path, register: Callable[[], object], settings: dict[str, Any], fault: str
) -> None:
    register()
    with pytest.raises(BadInput, match=fault):
        nesylora.adapt(tiny_task(**settings, budget={"rounds": 1}), runs=tmp_path / "runs")


FAULTY = """
from agent import extensions
from agent.records.edits import Edits

def deep(value):
    return 1 / value

@extensions.register_scorer("faulty")
def score(output, answer, settings):
    return 1.0 if output == answer else deep(0)

@extensions.register_style("faulty", instruction="Be good.")
def explain(output, settings):
    return "" if len(output) < 9 else [][1]

@extensions.register_editor("faulty")
class Editor:
    name = "faulty"
    def __init__(self, scorers, settings):
        pass
    def propose(self, *_):
        return {}["edits"]

@extensions.register_policy("faulty")
class Policy:
    def __init__(self, config):
        self.config = config.no_such_setting
"""


@pytest.mark.parametrize(
    ("settings", "sentence", "cause"),
    [
        (
            {"content": [{"kind": "faulty"}]},
            "The content scorer 'faulty' failed at {}, line 6, with ZeroDivisionError: division by zero. Correct",
            ZeroDivisionError,
        ),
        (
            {"style": [{"kind": "faulty"}]},
            "The style scorer 'faulty' failed at {}, line 14, with IndexError",
            IndexError,
        ),
        ({"edit": {"editor": "faulty"}}, "The editor 'faulty' failed at {}, line 22, with KeyError: 'edits'", KeyError),
        ({"policy": "faulty"}, "The policy 'faulty' failed at {}, line 27, with AttributeError", AttributeError),
    ],
)
def test_an_error_inside_an_extension_names_it_with_file_and_line(
    tiny_task: TinyTask, tmp_path: Path, settings: dict[str, Any], sentence: str, cause: type[Exception]
) -> None:
    module("faulty_code", FAULTY, tmp_path)
    task = tiny_task(**{"policy": "prompt-only", "budget": {"rounds": 1}} | settings)
    with pytest.raises(ExtensionFailed) as error:
        nesylora.adapt(task, runs=tmp_path / "runs")
    assert sentence.format(tmp_path / "faulty_code.py") in str(error.value)
    assert isinstance(error.value.__cause__, cause)


def test_a_run_goes_on_once_the_extension_that_stopped_it_is_mended(tiny_task: TinyTask, tmp_path: Path) -> None:
    broken = module("faulty_code", FAULTY, tmp_path)
    run = new_run(tiny_task(edit={"editor": "faulty"}, policy="prompt-only"), ["budget.rounds=1"], tmp_path / "runs")
    with pytest.raises(ExtensionFailed), open_session(run) as session:
        session.go()
    broken.Editor.propose = lambda *_: Edits()
    with open_session(RunFolder.open(run.path)) as session:
        session.go()
    assert run.outcome() is not None and "no proposal left" in run.rounds()[0].trial.note


def test_errors_of_ours_and_interrupts_pass_an_extension_unchanged(tiny_task: TinyTask, tmp_path: Path) -> None:
    for raised in (LlmUnavailable("no answer"), KeyboardInterrupt()):

        def fail(output: str, answer: str, settings: Settings, error: BaseException = raised) -> float:
            raise error

        extensions.register_scorer("failing", version="1")(fail)
        scorer = extensions.scorers.get("failing")
        with pytest.raises(type(raised)) as caught:
            scorer.score("", "", None)  # type: ignore[union-attr]
        assert caught.value is raised
        extensions.scorers.remove("failing")


@pytest.mark.parametrize("number", [1, True, np.float32(1), torch.tensor(1.0)])
def test_a_score_may_be_a_number_of_any_library(tiny_task: TinyTask, number: Any) -> None:
    extensions.register_scorer("mine")(lambda output, answer, settings: number)
    task = load_task(tiny_task(content=[{"kind": "mine"}]))
    assert task.scorers.score(task.train[0], "It is so.").content == 1


def test_the_report_of_a_run_whose_extension_is_missing_says_which(
    examples: list[ModuleType], tiny_task: TinyTask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run(tiny_task(**SETTINGS), runs=tmp_path / "runs")
    extensions.policies.remove("style-first")
    assert run_command(["report", run.name, "--runs", str(tmp_path / "runs")]) == 2
    assert "policy style-first" in capsys.readouterr().err


def test_a_run_whose_extension_is_missing_says_which(
    examples: list[ModuleType], tiny_task: TinyTask, tmp_path: Path
) -> None:
    run = new_run(tiny_task(**SETTINGS), runs=tmp_path / "runs")
    extensions.scorers.remove("ends_like")
    extensions.policies.remove("style-first")
    with pytest.raises(
        BadInput, match=r"content scorer ends_like \(registered from Python, in module example_0\)"
    ) as error:
        _ = RunServices(Context(run=str(run.path))).spec
    assert "policy style-first" in str(error.value) and "is not here: register it before" in str(error.value)


def test_a_scorer_that_changed_is_another_task(tiny_task: TinyTask, tmp_path: Path) -> None:
    task = tiny_task(content=[{"kind": "mine"}])
    code = (
        "from agent.extensions import register_scorer\n\n"
        "@register_scorer('mine'{})\ndef mine(output, answer, _):\n    return {}\n"
    )
    versions = [("", "0.0"), ("", "0.0"), ("", "1.0"), (", version='2'", "1.0"), (", version='2'", "0.5")]
    digests = []
    for number, (version, value) in enumerate(versions):
        module(f"mine_{number}", code.format(version, value), tmp_path)
        digests.append(load_task(task).digest)
        extensions.scorers.remove("mine")
    assert digests[0] == digests[1] != digests[2] != digests[3] == digests[4]


def test_what_is_wrong_with_its_settings_has_a_line(examples: list[ModuleType], tiny_task: TinyTask) -> None:
    task = tiny_task(content=[{"kind": "ends_like", "leters": 3}], style=[{"kind": "polite", "word": 5}])
    with pytest.raises(BadInput) as error:
        load_config(task)
    lines = str(error.value).splitlines()
    assert re.search(r"task.yaml, line \d+: unknown key 'leters'; did you mean 'letters'\?", lines[0])
    assert "'style.0.word' must be text (put it in quotes), but it is 5" in lines[1]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"content": [{"kind": "ends_lik"}]}, "unknown kind 'ends_lik'; did you mean 'ends_like'?"),
        ({"style": [{"kind": "polit"}]}, "unknown kind 'polit'; did you mean 'polite'?"),
        (
            {"edit": {"editor": "instuct"}},
            "must be one of 'rules', 'textgrad', 'gepa' or 'instruct'",
        ),
        ({"policy": "style-last"}, "there is no policy 'style-last'. There are: rules,"),
    ],
)
def test_an_unknown_name_gets_the_nearest(
    examples: list[ModuleType], tiny_task: TinyTask, wrong: dict[str, object], sentence: str
) -> None:
    with pytest.raises(BadInput) as error:
        load_config(tiny_task(**wrong))
    assert sentence in str(error.value)
    if "policy" in wrong:
        assert "style-first" in str(error.value)


def test_a_name_is_given_once() -> None:
    def half(output: str, answer: str, settings: Settings) -> float:
        return 0.5

    extensions.register_scorer("half")(half)
    with pytest.raises(BadInput, match="registered already"):
        extensions.register_scorer("half")(half)
    for register, taken in (
        (extensions.register_scorer, "exact"), (extensions.register_editor, "textgrad"),
        (extensions.register_policy, "learned"), (extensions.register_policy, "pw"),
    ):  # fmt: skip
        if taken != "pw":
            with pytest.raises(BadInput, match="built-in"):
                register(taken)(half)  # type: ignore[operator]
    with pytest.raises(BadInput, match="cannot be named"):
        extensions.register_style("No good", StyleSettings, instruction="")(lambda output, settings: "")


def test_a_score_beyond_its_bounds_is_refused(tiny_task: TinyTask) -> None:
    @extensions.register_scorer("too_much")
    def too_much(output: str, answer: str, settings: Settings) -> float:
        return 1.5

    with pytest.raises(BadInput, match=r"'too_much' gave 1.5"):
        load_task(tiny_task(content=[{"kind": "too_much"}], style=[]))


def test_a_function_without_source_needs_a_version() -> None:
    scope: dict[str, Any] = {}
    exec("def unseen(output, answer, settings): return 1.0", scope)
    with pytest.raises(BadInput, match='give `version="1"`'):
        extensions.register_scorer("unseen")(scope["unseen"])
    extensions.register_scorer("unseen", version="1")(scope["unseen"])


# --- by entry point ---------------------------------------------------------------------------------


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Installs packages for a test: entry points of the group of scorers, by name."""
    points: dict[str, str] = {}

    def installed(group: str, name: str | None = None) -> list[EntryPoint]:
        there = points if group == "nesylora.scorers" else {}
        return [EntryPoint(key, value, group) for key, value in there.items() if name in (None, key)]

    monkeypatch.setattr(registry, "entry_points", installed)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "of_a_package.py").write_text(EXAMPLES[0][0])
    yield points
    sys.modules.pop("of_a_package", None)


def test_an_entry_point_is_loaded_when_a_task_names_it(packages: dict[str, str], tiny_task: TinyTask) -> None:
    packages["ends_like"] = "of_a_package:ends_like"
    task = tiny_task(content=[{"kind": "contains"}])
    load_config(task)
    assert "of_a_package" not in sys.modules
    config = load_config(task, ['content=[{"kind": "ends_like"}]'])
    assert extensions.used_by(config) == {"content scorer ends_like": "module of_a_package"}


def test_what_a_package_had_says_how_to_install_it(packages: dict[str, str]) -> None:
    lacking = extensions.missing({"content scorer ends_like": "package my-scorers 1.2"})
    assert lacking.endswith("is not here: pip install my-scorers==1.2")
    packages["ends_like"] = "of_a_package:ends_like"
    assert extensions.missing({"content scorer ends_like": "package my-scorers 1.2"}) == ""


def test_one_that_cannot_be_loaded_says_why(packages: dict[str, str], tiny_task: TinyTask, tmp_path: Path) -> None:
    packages |= {"gone": "no_such_module:thing", "ends_like": "of_a_package:ends_like", "odd": "of_a_package:ends_like"}
    task = tiny_task()
    with pytest.raises(BadInput, match=r"override .*'gone' of module no_such_module cannot be loaded"):
        load_config(task, ['content=[{"kind": "gone"}]'])
    with pytest.raises(BadInput, match="registers none of this name"):
        load_config(task, ['content=[{"kind": "odd"}]'])
    with pytest.raises(BadInput, match="did you mean 'gone'"):
        load_config(task, ['content=[{"kind": "gon"}]'])
    found = {line.split(":")[0]: good for good, line in checks(tmp_path) if line.startswith("content scorer")}
    assert found == {"content scorer ends_like": True, "content scorer gone": None, "content scorer odd": None}
