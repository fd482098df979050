"""The house keeps its shape: imports run down, never sideways or up; heavy packages have one door each."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("agent", "tools", "memory", "eval", "graphs", "export", "ui", "bench")
BELOW = {
    "agent": set(),
    "tools": {"agent"},
    "memory": {"agent"},
    "eval": {"agent"},
    "graphs": {"agent", "tools", "memory", "eval"},
    "export": {"agent", "tools", "memory", "eval", "graphs"},
    "ui": {"agent", "tools", "memory", "eval", "graphs", "export"},
    "bench": {"agent", "tools", "memory", "eval", "graphs", "export", "ui"},
}
DOORS = {
    "textgrad": {"tools/editing/descent.py"},
    "gepa": {"tools/editing/pareto_search.py"},
    "chromadb": {"memory/chroma.py", "memory/shared/chroma_server.py", "memory/shared/chroma_client.py"},
    "langchain_openai": {"tools/llm/completion.py"},
    "psycopg": {"memory/shared/connection.py", "memory/shared/postgres.py", "graphs/postgres.py"},
    "ray": {"graphs/workers/ray_cluster.py"},
}
MEASURED_HERE = {
    "bench.backbones",
    "bench.cost",
    "bench.cost.gpu",
    "bench.cost.contenders",
    "bench.overheads",
    "bench.studies",
    "bench.studies.night",
}
"""Not in the wheel: run from a checkout."""

FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def modules(path: Path) -> set[str]:
    """Everything a file imports, inside functions too; `from a import b` as a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imported(path: Path) -> set[str]:
    """The first names of everything a file imports."""
    return {module.split(".")[0] for module in modules(path)}


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_down_only(path: Path) -> None:
    assert imported(path) & {*ROOMS, "nesylora", "tests", "examples"} <= BELOW[room(path)] | {room(path)}


def test_what_is_in_the_wheel_imports_nothing_that_is_not() -> None:
    left_out = tuple(f"{package}." for package in MEASURED_HERE)
    shipped = [path for path in FILES if str(path.parent.relative_to(ROOT)).replace("/", ".") not in MEASURED_HERE]
    assert not [path for path in shipped if any(f"{module}.".startswith(left_out) for module in modules(path))]


@pytest.mark.parametrize("package", DOORS)
def test_heavy_packages_have_one_door(package: str) -> None:
    assert {str(path.relative_to(ROOT)) for path in FILES if package in imported(path)} == DOORS[package]


def test_the_mind_knows_no_torch_no_store_and_no_network() -> None:
    heavy = {"torch", "transformers", "peft", "chromadb", "langgraph", "openai", "httpx", "requests", "datasets"}
    assert not heavy & set().union(*(imported(path) for path in FILES if path.is_relative_to(ROOT / "agent")))


@pytest.mark.parametrize("module", ["nesylora", "ui.cli"])
def test_the_front_door_loads_nothing_heavy(module: str) -> None:
    heavy = "torch transformers peft chromadb langgraph textgrad gepa langchain_openai datasets numpy rich pydantic"
    code = f"import sys, {module}; print([name for name in {heavy.split()} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert answer.stdout.strip() == "[]"


def test_packages_are_listed_one_by_one() -> None:
    import tomllib

    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    with_code = {str(p.parent.relative_to(ROOT)).replace("/", ".") for p in ROOT.glob("[!.]*/**/__init__.py")}
    shipped = {package for package in with_code if package.split(".")[0] in {*ROOMS, "tasks"}} - MEASURED_HERE
    assert set(setuptools["packages"]) == shipped
