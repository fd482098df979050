"""Names that extensions are registered under, in Python or by an entry point of an installed package."""

import re
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from agent.errors import BadInput

T = TypeVar("T")


class Registry(Generic[T]):
    """The extensions of one kind, by name.

    Args:
        what: the kind, as errors name it.
        group: of the entry points.
        built_in: module and name of a function that says whether a name is one of ours. (Imported when it is needed.)
    """

    def __init__(self, what: str, group: str, built_in: tuple[str, str]) -> None:
        self.what = what
        self.group = group
        self._built_in = built_in
        self._found: dict[str, T] = {}
        self._origins: dict[str, str] = {}

    def is_built_in(self, name: str) -> bool:
        """Whether the name is one of ours, which nobody can register."""
        module, function = self._built_in
        return bool(getattr(import_module(module), function)(name))

    def add(self, name: str, extension: T, origin: str) -> None:
        """Registers it.

        Raises:
            BadInput: the name is taken, or cannot be one.
        """
        if not re.fullmatch(r"[a-z][a-z0-9_-]+", name):
            raise BadInput(f"a {self.what} cannot be named {name!r}: use a-z, 0-9, - and _, with a letter first")
        if self.is_built_in(name):
            raise BadInput(f"there is a built-in {self.what} named {name!r}; give yours another name")
        if name in self._found:
            raise BadInput(
                f"a {self.what} named {name!r} is registered already ({self._origins[name]}); give yours another name, "
                "or remove that one first"
            )
        self._found[name], self._origins[name] = extension, origin

    def remove(self, name: str) -> None:
        """Forgets a name, so that it can be registered again (in a notebook, for instance)."""
        self._found.pop(name, None)
        self._origins.pop(name, None)

    def get(self, name: str) -> T | None:
        """The extension of this name, read from the package that has it if need be; None: there is none.

        Raises:
            BadInput: several packages have one of this name, or the package cannot be loaded.
        """
        if name not in self._found and not self.is_built_in(name):
            points = self._entry_points(name)
            if len(points) > 1:
                packages = " and ".join(sorted(map(_package, points)))
                raise BadInput(f"several packages have a {self.what} named {name!r}: {packages}; uninstall all but one")
            for point in points:
                self._load(point)
        return self._found.get(name)

    def names(self) -> list[str]:
        """All names that are registered here or that an installed package has."""
        return sorted({*self._found, *(point.name for point in self._entry_points())})

    def origin(self, name: str) -> str:
        """Where the extension of this name comes from: package and version, or the Python module."""
        return self._origins[name]

    def overview(self) -> Iterator[tuple[bool, str]]:
        """For each name, whether it can be used, and a line about it."""
        for name in self.names():
            try:
                self.get(name)
                found = name in self._found
                fault = "" if found else f"there is a built-in {self.what} of this name"
            except BadInput as error:
                found, fault = False, str(error)
            yield found, f"{self.what} {name}: {self._origins[name] if found else fault}"

    def _entry_points(self, name: str | None = None) -> list[EntryPoint]:
        """Each once: an editable install may list them twice."""
        points = entry_points(group=self.group) if name is None else entry_points(group=self.group, name=name)
        return list({(point.name, point.value, _package(point)): point for point in points}.values())

    def _load(self, point: EntryPoint) -> None:
        try:
            point.load()
        except (ImportError, AttributeError, SyntaxError) as error:
            raise BadInput(
                f"the {self.what} {point.name!r} of {_package(point)} cannot be loaded: {error}; mend or uninstall it"
            ) from error
        if point.name not in self._found:
            raise BadInput(
                f"{_package(point)} says that it has a {self.what} named {point.name!r}, but {point.value} registers "
                f"none of this name"
            )
        self._origins[point.name] = _package(point)


def _package(point: EntryPoint) -> str:
    return f"package {point.dist.name} {point.dist.version}" if point.dist else f"module {point.module}"
