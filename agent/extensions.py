"""Scorers, editors and policies of your own: registered by name, then named in a task.yaml. See docs/extending.md.

A name is registered by a call in Python, or found by an entry point of an installed package (groups `nesylora.scorers`,
`nesylora.styles`, `nesylora.editors`, `nesylora.policies`), whose module makes that call when it is imported.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from pydantic import create_model

from agent.config.base import CustomScorer, CustomStyle, Settings, StyleSettings
from agent.errors import BadInput, ExtensionFailed, NesyLoraError
from agent.records.base import digest
from agent.registry import Registry

if TYPE_CHECKING:
    from agent.config.prompt import Editing
    from agent.config.task import TaskConfig
    from agent.protocols import Editor, Policy, Scorers

K = TypeVar("K", CustomScorer, CustomStyle)
ScoreFunction = TypeVar("ScoreFunction", bound=Callable[..., float])
ExplainFunction = TypeVar("ExplainFunction", bound=Callable[..., str])
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Scorer:
    """A content scorer. `score(output, answer, settings)` is in [0, 1]; `settings` is what task.yaml says of it."""

    settings: type[CustomScorer]
    score: Callable[..., float]
    wanted: str
    version: str


@dataclass(frozen=True)
class Style:
    """A style scorer. `explain(output, settings)` says what is wrong with the form, or "" where nothing is."""

    settings: type[CustomStyle]
    explain: Callable[..., str]
    instruction: str
    form: str
    version: str


EditorFactory = Callable[["Scorers", "Editing"], "Editor"]
PolicyFactory = Callable[["TaskConfig"], "Policy"]


scorers = Registry[Scorer]("content scorer", "nesylora.scorers", ("agent.config.scorers", "is_content_kind"))
styles = Registry[Style]("style scorer", "nesylora.styles", ("agent.config.scorers", "is_style_kind"))
editors = Registry[EditorFactory]("editor", "nesylora.editors", ("agent.config.prompt", "is_editor"))
policies = Registry[PolicyFactory]("policy", "nesylora.policies", ("agent.config.policies", "is_policy"))
AnyRegistry = Registry[Scorer] | Registry[Style] | Registry[EditorFactory] | Registry[PolicyFactory]
REGISTRIES: Mapping[str, AnyRegistry] = {registry.what: registry for registry in (scorers, styles, editors, policies)}


def register_scorer(
    name: str, settings: type[Settings] = Settings, *, version: str | None = None, wanted: str = ""
) -> Callable[[ScoreFunction], ScoreFunction]:
    """Registers a function as a content scorer: `content: [{kind: <name>, ...}]`.

    The function is called with (output, answer, settings) and returns a score in [0, 1].

    Args:
        settings: what task.yaml may say beside `kind`, as a subclass of `agent.config.base.Settings`.
        version: of the scorer. Scores compare only where it is the same; by default a digest of the function's source,
            so raise a version of your own where the function calls others that may change.
        wanted: what it looks for, in words that follow "Wanted:".

    Raises:
        BadInput: the name is taken.
    """

    def register(score: ScoreFunction) -> ScoreFunction:
        words = wanted or f"what the scorer {name} looks for"
        kind = _with_kind(settings, CustomScorer, name)
        blamed = _blamed(scorers, name, score)
        scorers.add(name, Scorer(kind, blamed, words, version or _source_digest(score)), _module(score))
        return score

    return register


def register_style(
    name: str,
    settings: type[StyleSettings] = StyleSettings,
    *,
    instruction: str,
    form: str = "{answer}",
    version: str | None = None,
) -> Callable[[ExplainFunction], ExplainFunction]:
    """Registers a function as a style scorer: `style: [{kind: <name>, ...}]`.

    The function is called with (output, settings) and returns a sentence on what is wrong with the form, or "".

    Args:
        settings: as for `register_scorer`; a subclass of `agent.config.base.StyleSettings`, which has `say` and `show`.
        instruction: tells a model what to do, in one sentence. `say` in task.yaml replaces it.
        form: the wanted form of a reference, with {answer} in it. `show` in task.yaml replaces it.
        version: as for `register_scorer`.

    Raises:
        BadInput: the name is taken.
    """

    def register(explain: ExplainFunction) -> ExplainFunction:
        kind = _with_kind(settings, CustomStyle, name)
        style = Style(kind, _blamed(styles, name, explain), instruction, form, version or _source_digest(explain))
        styles.add(name, style, _module(explain))
        return explain

    return register


def register_editor(name: str) -> Callable[[EditorFactory], EditorFactory]:
    """Registers a class, or a function, that makes an `agent.protocols.Editor`: `edit: {editor: <name>}`.

    It is called with the task's scorers (`agent.protocols.Scorers`) and its `edit` settings.

    Raises:
        BadInput: the name is taken.
    """

    def register(make: EditorFactory) -> EditorFactory:
        editors.add(name, _blamed_maker(editors, name, make, "propose"), _module(make))
        return make

    return register


def register_policy(name: str) -> Callable[[PolicyFactory], PolicyFactory]:
    """Registers a class, or a function, that makes an `agent.protocols.Policy`: `policy: <name>`.

    It is called with the task's settings. The run ends at its target or budget whatever the policy decides.

    Raises:
        BadInput: the name is taken.
    """

    def register(make: PolicyFactory) -> PolicyFactory:
        policies.add(name, _blamed_maker(policies, name, make, "decide"), _module(make))
        return make

    return register


def missing(used: Mapping[str, str]) -> str:
    """A sentence on extensions that a run uses and that are not here; "" if all are.

    Args:
        used: where each comes from, by kind and name, such as `editor shouting`; see `used_by`.
    """
    lacking = []
    for extension, origin in used.items():
        what, _, name = extension.rpartition(" ")
        if REGISTRIES[what].get(name) is None:
            kind, *package = origin.split()
            way_out = (
                f"pip install {'=='.join(package)}" if kind == "package" else "register it before the run is opened"
            )
            lacking.append(f"the {extension} ({origin}) is not here: {way_out}")
    return "; ".join(lacking)


def used_by(config: "TaskConfig") -> dict[str, str]:
    """Where each extension that a task uses comes from, by kind and name."""
    named: list[tuple[AnyRegistry, str]] = [
        *((scorers, scorer.kind) for scorer in config.content),
        *((styles, style.kind) for style in config.style),
        (editors, config.edit.editor),
        (policies, config.policy),
    ]
    return {
        f"{registry.what} {name}": registry.origin(name)
        for registry, name in named
        if not registry.is_built_in(name) and registry.get(name)
    }


class _Blame:
    """Around every call of an extension: what it raises becomes an error that says which one it was, and where."""

    def __init__(self, extension: str) -> None:
        self._extension = extension

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, Exception) or isinstance(error, NesyLoraError):
            return
        raise ExtensionFailed(
            f"The {self._extension} failed{_place(trace)} with {type(error).__name__}: {error}. Correct it, then start "
            "again; a run that it stopped goes on with resume."
        ) from error


def _place(trace: TracebackType | None) -> str:
    """The last line of the user's own file that the error came through; "" if it was raised outside of Python."""
    user = trace.tb_next if trace else None  # the first line is the call, here
    file, line, place = (user.tb_frame.f_code.co_filename if user else ""), 0, user
    while place:
        if place.tb_frame.f_code.co_filename == file:
            line = place.tb_lineno
        place = place.tb_next
    return f" at {file}, line {line}," if file else ""


def _blamed(registry: AnyRegistry, name: str, function: Function) -> Function:
    """The function, whose errors name the extension."""

    def call(*values: Any, **named: Any) -> Any:
        with _Blame(f"{registry.what} {name!r}"):
            return function(*values, **named)

    return cast(Function, call)


def _blamed_maker(registry: AnyRegistry, name: str, make: Function, method: str) -> Function:
    """The maker of an editor or a policy, and its one method, whose errors name the extension."""

    def made(*values: Any) -> Any:
        extension = _blamed(registry, name, make)(*values)
        own = getattr(extension, method, None)
        if not callable(own):
            return extension  # who uses it says what is wrong with it
        return SimpleNamespace(**{"name": getattr(extension, "name", name), method: _blamed(registry, name, own)})

    return cast(Function, made)


def _module(made: object) -> str:
    return f"registered from Python, in module {getattr(made, '__module__', '?')}"


def _with_kind(settings: type[Settings], custom: type[K], name: str) -> type[K]:
    """The user's settings with `kind` in front."""
    kind: Any = Literal[name]  # known only now, as the bases are
    bases: Any = (custom,) if issubclass(custom, settings) else (settings, custom)
    return cast(type[K], create_model(settings.__name__, __base__=bases, kind=(kind, ...)))


def _source_digest(function: Callable[..., object]) -> str:
    try:
        return digest(inspect.getsource(function))
    except (OSError, TypeError):
        raise BadInput(
            f"the source of {getattr(function, '__name__', 'the function')} cannot be read, so no change of it would "
            'be noticed: give `version="1"`, and raise it with every change'
        ) from None
