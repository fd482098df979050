"""What the pages show of runs, and that they show it soon."""

import io
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from fastapi.testclient import TestClient

from agent.records.actions import Rollback
from agent.records.events import RoundJudged
from agent.records.examples import Candidate, Demo, Prompt
from agent.records.rounds import Round
from export.base import Base
from export.manifest import Manifest
from graphs.control.steering import Step
from graphs.serving import best_pair
from memory.run.folder import RunFolder
from tests.fixtures.pages import EVIL, Visible
from tests.fixtures.story import SEED, SHOWN, TASK, a_baseline, a_round, make_run, new_run, save_scores, the_story
from tests.ui.page.conftest import Pages


def words(page: str) -> str:
    seen = Visible()
    seen.feed(page)
    return " ".join(" ".join(seen.words).split())


@pytest.fixture
def page(pages: Callable[..., Pages], story: RunFolder) -> Pages:
    return pages()


def test_the_runs_stand_with_their_state_and_what_came_of_them(page: Pages, story: RunFolder) -> None:
    seen = words(page.get("/"))
    assert "valley-1 stopped" in seen and "0.00 → 1.00" in seen and "4 rounds" in seen
    page.steered(story).becomes(condition="waiting")
    assert "valley-1 waits for you" in words(page.get("/"))


def test_a_damaged_run_hides_no_other(page: Pages) -> None:
    broken = page.root / "broken"
    broken.mkdir()
    (broken / "run.json").write_text("{")
    seen = words(page.get("/"))
    assert "broken damaged" in seen and "valley-1 stopped" in seen


def test_an_empty_folder_says_how_to_begin(pages: Callable[..., Pages], tmp_path: Path) -> None:
    assert "Start the first one" in words(pages(tmp_path / "none").get("/"))


def test_a_run_shows_what_it_does_now(page: Pages, story: RunFolder) -> None:
    page.steered(story).becomes(
        condition="working", step=Step(what="training", done=48, total=96, note="loss 0.31", seconds_left=41)
    )
    text = page.get("/runs/valley-1")
    assert '<progress id="progress" max="96" value="48" aria-label="training">' in text
    assert "48 of 96 loss 0.31 about 41 s left" in words(text)


def test_a_run_shows_its_rounds_newest_first_with_reason_change_and_cost(page: Pages) -> None:
    text = page.get("/runs/valley-1")
    assert re.findall(r'id="round-(\d)"', text) == ["4", "3", "2", "1"]
    seen = words(text)
    assert "demonstrations alone would take 4.0 nats a token away" in seen
    assert "The gain is beyond chance." in seen and "cost 1 min 15 s" in seen and "taken back" in seen
    assert "<ins>ANSWER: " in text or "demonstration, added" in text


def test_an_older_pair_that_was_asked_for_is_no_gain(page: Pages, story: RunFolder) -> None:
    last = story.rounds()[-1]
    decision = last.decision.model_copy(update={"move": Rollback(to_round=1), "by": "user"})
    back = last.model_copy(update={"number": 5, "decision": decision, "reward": 0.04})
    story.append(back)
    story.event(RoundJudged(row=back))
    text = page.get("/runs/valley-1")
    assert text.count('<span class="tag ">went back, as asked</span>') == 2  # in its round, and in the conversation
    assert "went back, as asked" in words(page.get("/runs/valley-1/sides"))


def test_going_back_says_what_it_does_before_it_is_done(page: Pages) -> None:
    seen = words(page.get("/runs/valley-1"))
    assert "Go back to before round 3 The pair with reward 0.04 stands again" in seen


def test_budgets_stand_as_meters(page: Pages) -> None:
    text = page.get("/runs/valley-1")
    assert "rounds 4 of 6" in words(text) and 'aria-label="67% used"' in text


def test_a_run_that_measured_nothing_yet_says_so(pages: Callable[..., Pages], tmp_path: Path) -> None:
    new_run(tmp_path / "runs")
    page = pages()
    assert "Nothing is measured yet" in words(page.get("/runs/valley-1"))
    for part in ("charts", "examples", "rounds?before=1", "sides"):
        page.get(f"/runs/valley-1/{part}")


def test_before_any_trial_the_baseline_stands_once(pages: Callable[..., Pages], tmp_path: Path) -> None:
    make_run(tmp_path / "runs", rounds=0, finished=False)
    seen = words(pages().get("/runs/valley-1"))
    assert "0.00 joint reward of the seed prompt on validation rows; target 0.95" in seen and "0.00 →" not in seen
    assert "Rounds None yet." in seen


def test_charts_draw_signal_promises_and_loss(page: Pages) -> None:
    text = page.get("/runs/valley-1/charts")
    assert "of the best pair" in text and "gradient norm" in text and "round 4, epoch 4: mean loss" in text
    assert "ANSWER: Odile" in text  # the best prompt


def test_examples_stand_before_and_after_with_their_questions(page: Pages) -> None:
    rows = [{"question": f"What of {line}?", "answer": str(line)} for line in range(1, 13)]
    for split in ("train", "validation", "test"):
        text = "\n".join(json.dumps(row | {"question": f"{split}: {row['question']}"}) for row in rows)
        (page.root / f"{split}.jsonl").write_text(text)
    seen = words(page.get("/runs/valley-1/examples"))
    assert "validation: What of 1? → 1" in seen and "ANSWER: Brannoc" in seen and seen.count("before ✗ content") == 3
    assert words(page.get("/runs/valley-1/examples?all=true")).count("before ✗ content") == 12


def test_examples_stand_without_their_questions_where_the_rows_are_gone(page: Pages) -> None:
    assert "ANSWER: Brannoc" in words(page.get("/runs/valley-1/examples"))


def test_two_candidates_answer_the_same_rows_side_by_side(page: Pages) -> None:
    seen = words(page.get("/runs/valley-1/sides?first=0&second=4"))
    assert "12 validation rows that both answered" in seen and "reward 0.00 and 1.00" in seen
    assert "round 4: LoRA, kept ✓ content" in seen
    assert "No validation row was answered by both" in words(page.get("/runs/valley-1/sides?first=0&second=1"))
    assert page.client.get("/runs/valley-1/sides?first=0&second=9").status_code == 422


def test_the_report_opens_and_is_written_where_it_is_missing(page: Pages, story: RunFolder) -> None:
    answer = page.client.get("/runs/valley-1/report")
    assert answer.status_code == 200 and "report of a run" in answer.text
    assert story.report_html.exists()
    assert "script-src" not in answer.headers["content-security-policy"]


def test_text_of_models_and_rows_stays_text(pages: Callable[..., Pages], tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", rounds=3, finished=False, output=EVIL)
    part = "<hx-partial hx-target='#live'>gone</hx-partial>"
    evil = Prompt(system=EVIL + part, demos=(Demo(question=EVIL, answer=EVIL),))
    run.save_prompt(evil)
    candidate = Candidate(prompt=evil.id)
    save_scores(run, candidate, "validation", 12, "")
    run.append(a_round(4, the_story()[0].decision.move, Candidate(prompt=SHOWN.id), candidate, 0.33, 0.9, kept=True))
    page = pages()
    for path in ("", "/rounds?before=5", "/charts", "/examples", "/sides"):
        text = page.get(f"/runs/valley-1{path}")
        assert "<script>" not in text and "<img" not in text and "<hx-partial" not in text


def test_a_page_brings_everything_along(page: Pages) -> None:
    for path in ("/", "/runs/valley-1", "/new", "/prompts", "/api"):
        seen = Visible()
        seen.feed(page.get(path))
        addresses = [attrs.get(name) for _, attrs in seen.tags for name in ("src", "href", "action") if attrs.get(name)]
        assert addresses and all(address.startswith(("/", "#")) for address in addresses)
        assert not [attrs for _, attrs in seen.tags if "style" in attrs or any(key.startswith("on") for key in attrs)]
    for address in ("/page.css", "/page.js", "/static/mark.svg"):
        page.get(address)


def test_htmx_and_its_extension_are_one_script_so_that_it_cannot_begin_without(page: Pages) -> None:
    assert page.get("/runs/valley-1").count("<script") == 1
    script = page.get("/page.js")
    assert script.index("var htmx=") < script.index('registerExtension("sse"') < script.index("What htmx does not do")


def test_what_is_vendored_is_what_its_page_says() -> None:
    import hashlib

    folder = Path(__file__).parents[3] / "ui" / "page" / "static"
    stated = re.findall(r"`([\w.-]+\.js)` \| `([0-9a-f]{64})`", (folder / "README.md").read_text())
    assert {name for name, _ in stated} == {"htmx.min.js", "hx-sse.min.js"}
    for name, digest in stated:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


class Labels(HTMLParser):
    """Inputs, and what names them."""

    def __init__(self) -> None:
        super().__init__()
        self.depth, self.named, self.unnamed = 0, set[str](), list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "label":
            self.depth += 1
            self.named.add(given.get("for") or "")
        if tag in ("input", "select", "textarea") and given.get("type") != "hidden" and not self.depth:
            self.unnamed.append(given.get("id") or "?")

    def handle_endtag(self, tag: str) -> None:
        self.depth -= tag == "label"


@pytest.mark.parametrize("path", ["/runs/valley-1", "/new", "/prompts", "/runs/valley-1/sides"])
def test_every_input_has_a_label(page: Pages, path: str) -> None:
    labels = Labels()
    labels.feed(page.get(path))
    assert [name for name in labels.unnamed if name not in labels.named] == []


def long_run(root: Path, rounds: int) -> RunFolder:
    """A run of so many rounds, from the records of a short one."""
    run, told = make_run(root, rounds=3, finished=False), the_story()[:3]
    with (run.path / "ledger.jsonl").open("a") as ledger:
        for number in range(4, rounds + 1):
            row = told[number % 3].model_copy(update={"number": number, "best": told[2].best, "reward": 0.33})
            ledger.write(json.dumps({"kind": "round", **row.model_dump(mode="json")}) + "\n")
    return run


def test_a_long_run_begins_with_its_last_rounds_and_gives_the_rest_on_demand(
    pages: Callable[..., Pages], tmp_path: Path
) -> None:
    run = long_run(tmp_path / "runs", 500)
    page = pages()
    text = page.get("/runs/valley-1")
    assert re.findall(r'id="round-(\d+)"', text) == ["500", "499", "498", "497", "496", "495"]
    assert "Show earlier rounds (494)" in text and len(text) < 200_000
    more = page.get("/runs/valley-1/rounds?before=495")
    assert re.findall(r'id="round-(\d+)"', more)[0] == "494" and "before=483" in more
    last = page.get("/runs/valley-1/rounds?before=3")
    assert re.findall(r'id="round-(\d+)"', last) == ["2", "1"] and "earlier" not in last
    assert isinstance(run.rounds()[-1], Round)


def test_an_unknown_run_gets_a_page_that_names_the_nearest(page: Pages) -> None:
    answer = page.client.get("/runs/valey-1")
    assert answer.status_code == 422 and "The nearest are: valley-1" in answer.text


def test_the_api_page_lists_what_the_description_has(page: Pages) -> None:
    described = page.client.get("/openapi.json").json()
    seen = words(page.get("/api"))
    for path in described["paths"]:
        assert path in seen
    assert "POST /runs/{name}/answer" in seen


def test_a_finished_run_shows_its_test_rows(pages: Callable[..., Pages], tmp_path: Path) -> None:
    make_run(tmp_path / "runs")
    page = pages()
    seen = words(page.get("/runs/valley-1"))
    assert "12 sealed test rows [0.75, 1.00]" in seen and "Go on with new limits" in seen
    assert "test 0.92" in words(page.get("/"))
    assert isinstance(page.client, TestClient)


def a_bundle(run: RunFolder) -> Path:
    """Of the best pair that the run has now, as far as the page looks at it."""
    pair, made = best_pair(run), run.path / "bundle"
    made.mkdir()
    manifest = Manifest(
        name="t", task="t", run=run.name, created="", version="", base=Base(), adapter=bool(pair.adapter),
        prompt=pair.prompt, refined_template=True, max_new_tokens=8, validation=1.0, seed_validation=0.0,
    )  # fmt: skip
    (made / "bundle.json").write_text(manifest.model_dump_json())
    if pair.adapter:
        weights = run.adapter_folder(pair.adapter) / "adapter_model.safetensors"
        weights.write_bytes(b"weights")
        shutil.copy(weights, made)
    return made


def test_the_bundle_is_one_file_without_links(page: Pages, story: RunFolder) -> None:
    assert "has no bundle yet" in page.client.get("/runs/valley-1/bundle").text
    (a_bundle(story) / "link").symlink_to("/etc/hostname")
    answer = page.client.get("/runs/valley-1/bundle")
    assert answer.headers["content-disposition"] == 'attachment; filename="valley-1.zip"'
    with ZipFile(io.BytesIO(answer.content)) as packed:
        assert packed.namelist() == ["valley-1/adapter_model.safetensors", "valley-1/bundle.json"]


def test_a_bundle_of_an_older_pair_is_not_given_out(pages: Callable[..., Pages], tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", rounds=2, finished=False)
    page = pages()
    a_bundle(run)
    assert page.client.get("/runs/valley-1/bundle").status_code == 200
    kept = [row for row in the_story() if row.verdict.kept][-1]
    assert kept.number > 2
    for row in the_story()[2 : kept.number]:
        run.append(row)
    answer = page.client.get("/runs/valley-1/bundle")
    assert answer.status_code == 422 and "not of the best pair that run valley-1 has now" in answer.text


def test_a_run_made_anew_under_the_same_name_shows_its_own_task_and_limits(
    pages: Callable[..., Pages], tmp_path: Path
) -> None:
    first = make_run(tmp_path / "runs", finished=False)
    page = pages()
    assert "of 6" in words(page.get("/runs/valley-1"))
    shutil.rmtree(first.path)
    settings = TASK | {"budget": {"rounds": 9}, "target": 0.55}
    RunFolder.create(tmp_path / "runs", "valley", yaml.safe_dump(settings), tmp_path, "0" * 12, name="valley-1")
    again = RunFolder.open(first.path)
    again.save_prompt(SEED)
    again.append(a_baseline())
    seen = words(page.get("/runs/valley-1"))
    assert "target 0.55" in seen and "of 9" in seen and "of 6" not in seen


@pytest.mark.parametrize(("path", "title"), [("/runs/no-such", "That cannot be done"), ("/nothing/here", "Not found")])
def test_an_error_has_a_title_of_its_own(page: Pages, path: str, title: str) -> None:
    assert f"<title>{title}" in page.client.get(path).text
