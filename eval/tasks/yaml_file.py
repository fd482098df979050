"""A YAML file whose keys know their lines."""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import yaml

from agent.errors import BadInput


@dataclass(frozen=True)
class YamlFile:
    """`values` is what the file says, `root` where it says it."""

    path: Path
    values: dict[str, object]
    root: yaml.Node

    def find(self, keys: tuple[int | str, ...]) -> tuple[int, int]:
        """How many of these keys, from the first, the file has; and the line (from 1) of the last one that it has."""
        node, line, depth = self.root, self.root.start_mark.line, 0
        for key in keys:
            child = _child(node, key)
            if child is None:
                break
            line, node, depth = child[0], child[1], depth + 1
        return depth, line + 1


def read_yaml(path: Path) -> YamlFile:
    """Reads a file that holds one section of keys, with `yaml.safe_load`.

    Raises:
        BadInput: no such file, not UTF-8, not YAML, not keys and values, or a key that occurs twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        values, root = yaml.safe_load(text), yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        hint = _near(path) or "give a task.yaml or a folder that holds one"
        raise BadInput(f"{path}: {error.strerror}; {hint}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise BadInput(f"{path}{line}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict) or root is None:
        raise BadInput(f"{path}: a task file holds keys and values, such as `name: valley`; this one does not")
    twice = [f"{path}, line {line}: the key '{key}' stands here a second time" for line, key in sorted(_repeated(root))]
    if twice:
        raise BadInput("\n".join(twice))
    return YamlFile(path, values, root)


def _near(path: Path) -> str:
    """Did you mean …? Empty where nothing beside it has a similar name."""
    if path.exists() or not path.parent.is_dir():
        return ""
    close = get_close_matches(path.name, [there.name for there in path.parent.iterdir()], n=1, cutoff=0.7)
    return f"did you mean {path.parent / close[0]}?" if close else ""


def _child(node: yaml.Node, key: int | str) -> tuple[int, yaml.Node] | None:
    """Line (from 0) and value under a key of a section or an index of a list."""
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key].start_mark.line, node.value[key]
    if isinstance(node, yaml.MappingNode):
        return next(((name.start_mark.line, value) for name, value in node.value if name.value == key), None)
    return None


def _repeated(root: yaml.Node) -> Iterator[tuple[int, str]]:
    """Line and name of each key that occurs twice in one section. (YAML would silently take the last.)"""
    waiting, done = [root], set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) in done or not isinstance(node, yaml.CollectionNode):
            continue
        done.add(id(node))  # an alias leads to the same node again, perhaps in a circle
        pairs = node.value if isinstance(node, yaml.MappingNode) else [(None, child) for child in node.value]
        waiting += [child for _, child in pairs]
        names = [name for name, _ in pairs if name is not None]
        for place, name in enumerate(names):
            if name.value in [earlier.value for earlier in names[:place]]:
                yield name.start_mark.line + 1, str(name.value)
