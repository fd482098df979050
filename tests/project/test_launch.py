"""The files in examples/launch say what the command line takes. (Nothing is launched here.)"""

import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from bench.decisions.cli import add_commands
from ui.cli import parser

LAUNCH = Path(__file__).parents[2] / "examples" / "launch"
FILES = sorted(LAUNCH.iterdir())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_command_of_ours_in_them_is_one(file: Path) -> None:
    text = re.sub(r'\["nesylora", (.*)\]', lambda found: "nesylora " + re.sub('[",]', "", found[1]), file.read_text())
    end = r"\s#|\|\||;|\s&(?=\s|$)|\bthen\b(?=.*nesylora)"
    lines = [re.split(end, line)[0] for line in re.split(r"\n|(?=\bnesylora )", text)]
    commands = [line for line in lines if re.match(r"nesylora (run|resume|demo|doctor)\b", line)]
    assert commands
    for command in commands:
        parser([add_commands]).parse_args(shlex.split(command)[1:])


def test_they_can_be_read() -> None:
    job, claim = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())
    assert job["kind"] == "Job" and claim["kind"] == "PersistentVolumeClaim"
    assert {"resources", "setup", "run", "file_mounts"} <= yaml.safe_load((LAUNCH / "skypilot.yaml").read_text()).keys()
    subprocess.run(["bash", "-n", LAUNCH / "slurm.sh"], check=True)
    assert (LAUNCH / "Dockerfile").read_text().count("FROM ") == 1


# A command that has begun once `asked` is there, and ends as ours does where a signal tells it to.
TOLD = """#!/bin/sh
case "$*" in *doctor*) exit 0 ;; esac
trap 'touch "$HOME/told"; kill $!; exit 143' TERM
/bin/sleep 60 &
echo "$*" > "$HOME/writing" && mv "$HOME/writing" "$HOME/asked"
wait
"""


def stand_ins(home: Path, **scripts: str) -> dict[str, str]:
    """The environment of a script that finds these commands, and no others of their names."""
    (home / "bin").mkdir()
    for name, text in scripts.items():
        (home / "bin" / name).write_text(text)
        (home / "bin" / name).chmod(0o755)
    return {"PATH": f"{home / 'bin'}:/usr/bin:/bin", "HOME": str(home)}


def ended_by_a_signal(home: Path, command: list[str], environment: dict[str, str]) -> int:
    """The exit code of a script that is sent SIGTERM once its command of ours runs."""
    process = subprocess.Popen(command, env=environment, cwd=home, start_new_session=True)
    try:
        while not (home / "asked").exists():
            assert process.poll() is None, "it has ended before"
            time.sleep(0.05)
        process.terminate()
        return process.wait()
    finally:
        if not (home / "told").exists():
            os.killpg(process.pid, signal.SIGKILL)


def kubernetes_script() -> str:
    job = next(yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text()))
    [script] = job["spec"]["template"]["spec"]["containers"][0]["args"]
    return str(script)


def test_kubernetes_tells_the_run_to_end_and_begins_it_again(tmp_path: Path) -> None:
    code = ended_by_a_signal(tmp_path, ["sh", "-c", kubernetes_script()], stand_ins(tmp_path, nesylora=TOLD))
    assert (tmp_path / "told").exists() and code == 1
    assert (tmp_path / "asked").read_text() == "run /task --name night --runs /runs\n"


@pytest.mark.parametrize(("code", "wanted"), [(0, 0), (4, 0), (5, 0), (2, 1), (130, 1)])
def test_kubernetes_takes_a_run_below_its_target_for_done(tmp_path: Path, code: int, wanted: int) -> None:
    environment = stand_ins(tmp_path, nesylora=f"#!/bin/sh\nexit {code}\n")
    assert subprocess.run(["sh", "-c", kubernetes_script()], env=environment, check=False).returncode == wanted


def test_slurm_tells_the_runs_to_end_before_their_time_is_over(tmp_path: Path) -> None:
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").touch()
    nothing = "#!/bin/sh\n"
    srun = '#!/bin/sh\necho "$SRUN_CPUS_PER_TASK" >> "$HOME/cores"\n'
    environment = stand_ins(tmp_path, nesylora=TOLD, scontrol="#!/bin/sh\necho node1\n", srun=srun, sleep=nothing)
    environment |= {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "8"}
    environment["SLURM_CPUS_PER_TASK"] = "32"
    code = ended_by_a_signal(tmp_path, ["bash", str(LAUNCH / "slurm.sh"), "a", "b"], environment)
    assert (tmp_path / "told").exists() and code == 143
    assert (tmp_path / "asked").read_text() == f"run --on ray --runs {tmp_path}/runs a b\n"
    assert (tmp_path / "cores").read_text() == "32\n32\n"


def test_the_image_takes_nothing_that_git_does_not_have() -> None:
    """A virtual environment of the host would be taken for the image's own, and never be set up."""
    ignored = (LAUNCH.parents[1] / ".gitignore").read_text().split()
    left_out = (LAUNCH.parents[1] / ".dockerignore").read_text().split("\n")
    assert {".git", *(f"**/{name.rstrip('/')}" for name in ignored)} <= set(left_out)
