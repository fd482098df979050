"""A user's own folders with the names of our packages: said, with the ways to go on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def python(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Python with NeSyLoRA on its path, started in a folder of the user's."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["tools", "agent", "eval"])
@pytest.mark.parametrize("made", ["package", "module"])
def test_a_folder_that_shadows_a_package_is_named_with_what_to_do(tmp_path: Path, name: str, made: str) -> None:
    file = tmp_path / name / "__init__.py" if made == "package" else tmp_path / f"{name}.py"
    file.parent.mkdir(exist_ok=True)
    file.touch()
    answer = python(tmp_path, "-m", "nesylora", "runs")
    assert answer.returncode == 2 and "Traceback" not in answer.stderr
    place = tmp_path / name if made == "package" else file
    assert answer.stderr.startswith(f"nesylora: {place} has the name of NeSyLoRA's own package `{name}`")
    assert "python -P -m nesylora" in answer.stderr
    assert python(tmp_path, "-P", "-m", "nesylora", "runs").returncode == 0


def test_adapt_says_so_too_of_what_was_imported_before(tmp_path: Path) -> None:
    (tmp_path / "memory.py").touch()
    code = "import memory, nesylora; nesylora.adapt('task')"
    answer = python(tmp_path, "-c", code)
    assert "nesylora.Shadowed:" in answer.stderr and str(tmp_path / "memory.py") in answer.stderr


FINDER = f"""
import importlib.machinery, importlib.util, sys
class Installed:
    def find_spec(name, path=None, target=None):
        return importlib.machinery.PathFinder.find_spec(name, [{str(ROOT)!r}]) if path is None else None
sys.meta_path.append(Installed)
sys.path.insert(0, sys.argv[1])
import nesylora
nesylora.adapt("task")
"""


def test_where_an_editable_installation_is_asked_last_a_folder_without_code_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    command = [sys.executable, "-S", "-P", "-c", FINDER, str(tmp_path)]  # no other finder than this
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    answer = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert f"nesylora.Shadowed: {tmp_path / 'tools'} has the name of" in answer.stderr


def test_folders_without_code_are_in_nobodys_way(tmp_path: Path) -> None:
    for name in ("tools", "eval", "tasks"):
        (tmp_path / name).mkdir()
    assert python(tmp_path, "-m", "nesylora", "runs").returncode == 0


def test_a_tasks_package_of_the_users_own_is_not_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "__init__.py").touch()
    code = "import tasks; from agent.example_tasks import shipped; print((shipped('valley') / 'task.yaml').is_file())"
    assert python(tmp_path, "-c", code).stdout.strip() == "True"
