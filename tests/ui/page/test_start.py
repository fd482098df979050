"""A run begins from a task that is there, or from a file of rows."""

import csv
import html
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from memory.run.folder import RunFolder
from tests.ui.page.conftest import Pages
from ui.page.drafts import MOST

PLACES = ("Orrowmere", "Tallisk", "Benn", "Mirr", "Corolt", "Dunwick", "Gallune", "Heskzan", "Ferny", "Pell")


@pytest.fixture
def page(pages: Callable[..., Pages]) -> Pages:
    return pages()


def some_csv(rows: int = 40) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["asked", "wanted", "who"])
    for number in range(rows):
        place = PLACES[number % len(PLACES)]
        writer.writerow([f"Who is the mayor of {place} {number}?", f"ANSWER: {place[::-1]}", "me"])
    return text.getvalue().encode()


def upload(page: Pages, name: str = "mayors.csv", content: bytes | None = None) -> tuple[int, str]:
    files = {"rows": (name, some_csv() if content is None else content)}
    answer = page.client.post("/drafts", files=files)
    return answer.status_code, answer.text


def draft_in(text: str) -> str:
    """The name of the draft that a proposal is of."""
    return text.split('hx-post="/drafts/')[1].split('"')[0]


COLUMNS = {"question": "asked", "answer": "wanted"}


def test_a_task_of_a_folder_here_is_started_with_its_limits(
    page: Pages, tiny_task: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_task().parent)
    assert "<option>task</option>" in page.get("/new") and "example: valley" in page.get("/new")
    form = {"task": "task", "name": "mine", "rounds": "2", "target": "0.5", "minutes": "", "supervised": "true"}
    answer = page.client.post("/runs", data=form)
    assert answer.headers["hx-redirect"] == "/runs/mine"
    run = RunFolder.open(page.root / "mine")
    config = yaml.safe_load(run.task_file.read_text())
    assert (config["budget"]["rounds"], config["target"]) == (2, 0.5)
    assert "mine" in page.steers.working and page.steers.supervised is True
    assert "Nothing is measured yet" in page.get("/runs/mine")


def test_a_task_that_is_not_in_the_list_is_not_read(page: Pages) -> None:
    answer = page.client.post("/runs", data={"task": "../../etc"})
    assert answer.status_code == 422 and list(page.root.glob("*/run.json")) == []


def test_rows_that_are_uploaded_get_a_proposal_that_can_be_changed(page: Pages) -> None:
    code, text = upload(page)
    assert code == 200, text
    assert "40 rows of mayors.csv" in text and "Who is the mayor of" in text and "starts_with" in text
    assert "40 of 40 answers begin with &#39;ANSWER:&#39;" in text
    assert text.count('<span class="soft">ANSWER: </span>') == 5  # also before the rows, which are written without it
    again = page.client.post(f"/drafts/{draft_in(text)}", data=COLUMNS | {"target": "0.7", "system": "Be brief."}).text
    assert 'value="0.7"' in again and "Be brief." in again and "target: 0.7" in again


def test_a_proposal_is_started_as_the_user_left_it(page: Pages, tiny_model: Callable[[str], Path]) -> None:
    _, text = upload(page)
    draft = draft_in(text)
    form = COLUMNS | {"model": str(tiny_model("llama")), "name": "mayors"}
    proposal = page.client.post(f"/drafts/{draft}", data=form).text
    written = proposal.split('class="code">')[1].split("</textarea>")[0].replace("&#39;", "'").replace("&#34;", '"')
    changed = written.replace("rounds: 6", "rounds: 3").replace("\n", "\r\n")
    assert changed != written
    answer = page.client.post(f"/drafts/{draft}/start", data=form | {"yaml": changed})
    assert answer.status_code == 200, answer.text
    run = RunFolder.open(page.root / answer.headers["hx-redirect"].rpartition("/")[2])
    assert yaml.safe_load(run.task_file.read_text())["budget"]["rounds"] == 3
    assert Path(run.about.source).is_relative_to(page.root / "uploads")
    assert page.steers.supervised is False


def test_a_draft_that_is_started_again_leaves_the_rows_of_the_first_run(
    page: Pages, tiny_model: Callable[[str], Path]
) -> None:
    draft = draft_in(upload(page)[1])
    sources = []
    for answers in ("wanted", "who"):  # the user goes back and takes another column
        form = {"question": "asked", "answer": answers, "model": str(tiny_model("llama")), "name": "mayors"}
        proposal = page.client.post(f"/drafts/{draft}", data=form).text
        written = html.unescape(proposal.split('class="code">')[1].split("</textarea>")[0])
        answer = page.client.post(f"/drafts/{draft}/start", data=form | {"yaml": written})
        assert answer.status_code == 200, answer.text
        run = RunFolder.open(page.root / answer.headers["hx-redirect"].rpartition("/")[2])
        sources.append(Path(run.about.source))
    first, second = (json.loads((source / "train.jsonl").read_text().splitlines()[0]) for source in sources)
    assert sources[0] != sources[1] and len(list(page.root.glob("*/run.json"))) == 2
    assert "ANSWER" in (sources[0] / "task.yaml").read_text() and first["answer"] != "me" == second["answer"]


def test_fields_count_at_start_and_a_task_yaml_that_was_changed_by_hand_counts_more(
    page: Pages, tiny_model: Callable[[str], Path]
) -> None:
    _, text = upload(page)
    seen, draft = re.findall(r'name="seen" value="(\w+)"', text)[0], draft_in(text)
    shown = html.unescape(text.split('class="code">')[1].split("</textarea>")[0])
    form = COLUMNS | {"model": str(tiny_model("llama")), "name": "mine", "target": "0.55", "rounds": "2", "seen": seen}

    def started(yaml_text: str) -> dict[str, object]:
        answer = page.client.post(f"/drafts/{draft}/start", data=form | {"yaml": yaml_text.replace("\n", "\r\n")})
        assert answer.status_code == 200, answer.text
        run = RunFolder.open(page.root / answer.headers["hx-redirect"].rpartition("/")[2])
        settings: dict[str, object] = yaml.safe_load(run.task_file.read_text())
        return settings

    config = started(shown)
    assert (config["name"], config["target"], config["budget"]["rounds"]) == ("mine", 0.55, 2)  # type: ignore[index]
    by_hand = shown.replace("model: smollm2-135m", f"model: {form['model']}").replace("rounds: 6", "rounds: 3")
    config = started(by_hand)
    assert config["name"] == "mayors" and config["budget"]["rounds"] == 3  # type: ignore[index]


def test_a_task_yaml_that_was_spoilt_says_where_and_can_be_mended(page: Pages) -> None:
    _, text = upload(page)
    draft = draft_in(text)
    broken = page.client.post(f"/drafts/{draft}/start", data=COLUMNS | {"yaml": "name: x\ntargett: 1\n"})
    assert broken.status_code == 422 and "targett" in broken.text
    assert list(page.root.glob("*/run.json")) == []
    assert page.client.post(f"/drafts/{draft}", data=COLUMNS).status_code == 200


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.exe", b"MZ", "is no file of rows"),
        ("rows", b"a,b", "is no file of rows"),
        ("rows.csv", b"", "rows"),
        ("rows.jsonl", b"{nothing", "rows"),
        ("rows.parquet", b"not parquet", "parquet"),
        ("few.csv", b"question,answer\nq,a\n", "at least"),
    ],
)
def test_what_is_no_file_of_rows_is_refused_and_not_kept(page: Pages, name: str, content: bytes, said: str) -> None:
    code, text = upload(page, name, content)
    assert code == 422 and said in text
    assert list((page.root / "uploads").glob("*")) == []


@pytest.mark.parametrize("name", ["../../../evil.csv", "..\\..\\evil.csv", "/etc/evil.csv", "a/b/evil.csv"])
def test_a_file_lands_in_its_own_folder_whatever_it_is_called(page: Pages, name: str) -> None:
    code, _ = upload(page, name)
    assert code == 200
    made = [path for path in page.root.parent.rglob("*") if path.is_file() and path.suffix == ".csv"]
    assert [path.parent.parent.name for path in made] == ["uploads"] and made[0].name == "evil.csv"


def test_an_upload_goes_after_a_week_unless_a_run_reads_it(page: Pages, tiny_model: Callable[[str], Path]) -> None:
    started, left = draft_in(upload(page)[1]), draft_in(upload(page)[1])
    form = COLUMNS | {"model": str(tiny_model("llama")), "name": "mayors"}
    proposal = page.client.post(f"/drafts/{started}", data=form).text
    written = proposal.split('class="code">')[1].split("</textarea>")[0].replace("&#39;", "'").replace("&#34;", '"')
    assert page.client.post(f"/drafts/{started}/start", data=form | {"yaml": written}).status_code == 200
    for draft in (started, left):
        os.utime(page.root / "uploads" / draft, (0, 0))
    fresh = draft_in(upload(page)[1])
    assert {folder.name for folder in (page.root / "uploads").iterdir()} == {started, fresh}


def test_a_file_beyond_the_limit_is_refused(page: Pages) -> None:
    code, _ = upload(page, "big.csv", b"question,answer\n" + b"q,a\n" * (MOST // 4 + 4096))
    assert code == 413
    assert not (page.root / "uploads").exists()


@pytest.mark.parametrize("draft", ["..", "nothing", "..%2f..%2fetc"])
def test_a_draft_that_is_not_there_is_none(page: Pages, draft: str) -> None:
    assert page.client.post(f"/drafts/{draft}", data=COLUMNS).status_code in (404, 405, 422)
