"""The files in examples/launch say what the command line takes. (Nothing is launched here.)"""

import re
import shlex
import subprocess
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
    lines = [re.split(r"\s#|\|\||;|\bthen\b(?=.*nesylora)", line)[0] for line in re.split(r"\n|(?=\bnesylora )", text)]
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
