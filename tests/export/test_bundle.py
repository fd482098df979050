"""A run exported: what lies in the bundle, and that others get the run's answers from it."""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest
import yaml
from huggingface_hub import CommitInfo, ModelCard, RepoUrl
from huggingface_hub.repocard_data import ModelCardData
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import nesylora
from agent.errors import BadInput, NesyLoraError
from agent.records.examples import Prompt
from agent.records.limits import Limits
from export.bundle import Wanted, export_run
from export.manifest import Difference, read_manifest
from graphs.approval import instead
from graphs.context import new_run
from graphs.session import open_session
from memory.run.folder import RunFolder
from tests.export.conftest import take
from tests.fixtures.command_line import run as command
from tests.fixtures.learnable import TinyTask
from tests.project.test_architecture import ROOMS, imported


def answers(
    bundle: Path, base: Path, questions: Sequence[str | list[dict[str, str]]], merged: bool = False
) -> list[str]:
    """As a card says, with transformers and peft alone; to bare questions, or to whole messages."""
    source = bundle / "merged" if merged else base
    tokenizer = AutoTokenizer.from_pretrained(bundle)
    model = AutoModelForCausalLM.from_pretrained(source, dtype="float32")
    if not merged:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, bundle)
    texts = []
    for question in questions:
        messages = [{"role": "user", "content": question}] if isinstance(question, str) else question
        asked = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        ids = model.generate(**asked, generation_config=GenerationConfig.from_pretrained(bundle))
        texts.append(tokenizer.decode(ids[0, asked["input_ids"].shape[1] :], skip_special_tokens=True).strip())
    return texts


QUESTIONS = ["Name the mayor of Benn.", 'Who "is" {question}?', "1\n2"]


def test_transformers_and_peft_alone_answer_as_the_run_does(
    trained: Callable[..., RunFolder], tiny_model: Callable[[str], Path]
) -> None:
    run = trained()
    bundle = export_run(run.path, wanted=Wanted(merged=True))
    assert bundle == run.path / "bundle"
    ours = nesylora.Adapted(run.path, None, None, None).generate(QUESTIONS)  # type: ignore[arg-type]
    assert answers(bundle, tiny_model("llama"), QUESTIONS) == ours
    assert answers(bundle, tiny_model("llama"), QUESTIONS, merged=True) == ours
    assert nesylora.load(bundle, base=str(tiny_model("llama"))).generate(QUESTIONS) == ours
    assert nesylora.load(bundle).generate(QUESTIONS[0]) == ours[:1]  # of the merged model: its base is in no hub
    assert nesylora.load(bundle).messages("q") == nesylora.messages(run.path, "q")


def test_the_cards_own_lines_run_where_there_is_nothing_of_ours(
    trained: Callable[..., RunFolder], tiny_model: Callable[[str], Path]
) -> None:
    run = trained()
    bundle = export_run(run.path, wanted=Wanted(base="somebody/tiny"))
    [lines] = re.findall("```python\n(.*?)```", (bundle / "README.md").read_text(), flags=re.DOTALL)
    lines = lines.replace("somebody/tiny", str(tiny_model("llama"))).replace('"…"', repr(QUESTIONS[0]))
    done = subprocess.run([sys.executable, "-I", "-c", lines], cwd=bundle, capture_output=True, text=True, check=True)
    ours = nesylora.Adapted(run.path, None, None, None).generate(QUESTIONS[0])  # type: ignore[arg-type]
    assert [done.stdout.strip()] == ours


def test_the_bundle_names_no_place_of_this_machine(trained: Callable[..., RunFolder], tmp_path: Path) -> None:
    bundle = export_run(trained().path, tmp_path / "out", Wanted(merged=True, base="somebody/tiny"))
    config = json.loads((bundle / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "somebody/tiny"
    texts = [file.read_bytes() for file in bundle.rglob("*") if file.is_file()]
    assert not [text for text in texts if str(tmp_path).encode() in text or b"/tmp/pytest" in text]
    assert yaml.safe_load((bundle / "task.yaml").read_text())["model"] == "somebody/tiny"


def test_the_hashes_hold(trained: Callable[..., RunFolder]) -> None:
    bundle = export_run(trained().path)
    sums = dict(reversed(line.split("  ")) for line in (bundle / "SHA256SUMS").read_text().splitlines())
    files = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()} - {"SHA256SUMS"}
    assert set(sums) == files >= {"README.md", "bundle.json", "prompt.json", "task.yaml", "ledger.jsonl"}
    assert all(hashlib.sha256((bundle / name).read_bytes()).hexdigest() == sums[name] for name in files)


def test_the_card_is_read_by_the_hubs_own_reader(trained: Callable[..., RunFolder]) -> None:
    run = trained()
    with open_session(run) as session:
        session.go(instead("stop"))
    [row] = run.rounds()[:1]
    assert row.trial.candidate is not None
    take(run, row.trial.candidate.adapter)
    outcome = run.outcome()
    assert outcome is not None
    bundle = export_run(run.path, wanted=Wanted(merged=True, base="somebody/tiny"))
    card = ModelCard.load(bundle / "README.md")
    data = card.data
    assert isinstance(data, ModelCardData)
    assert (data.base_model, data.base_model_relation) == ("somebody/tiny", "adapter")
    assert (data.library_name, data.pipeline_tag) == ("peft", "text-generation")
    results = {(result.dataset_split, result.metric_type): result for result in data.eval_results or []}
    test = results["test", "reward"]
    assert test.metric_value == pytest.approx(outcome.best_test.reward, abs=1e-4)
    assert test.metric_args["low"] <= test.metric_value <= test.metric_args["high"]
    assert [name for _, name in results] == ["reward", "reward", "drift"][: 2 + (outcome.drift is not None)]
    assert ModelCard.load(bundle / "merged" / "README.md").data.base_model_relation == "merge"
    assert '"system": "Start with \\"A\\"."' in card.text
    assert "sealed test rows, opened once" in card.text


def test_the_card_of_an_extended_run_says_that_its_test_rows_were_seen(
    trained: Callable[..., RunFolder],
) -> None:
    run = trained()
    with open_session(run) as session:
        session.go(instead("stop"))
    run.extend(Limits(rounds=1, target=1.0))
    text = ModelCard.load(export_run(run.path, wanted=Wanted(base="somebody/tiny")) / "README.md").text
    assert "its test rows were seen before it was extended" in text
    with open_session(run) as session:
        session.go()
    text = ModelCard.load(export_run(run.path, wanted=Wanted(base="somebody/tiny")) / "README.md").text
    assert "no blind result" in text and "opened once" not in text


def test_a_prompt_that_retrieves_brings_its_rows_and_says_that_no_template_can(
    tiny_task: TinyTask, tmp_path: Path
) -> None:
    task = tiny_task(prompt={"system": "Answer.", "retrieval": {"k": 2}})
    run = new_run(task, ["budget.rounds=0"], tmp_path / "runs")
    with open_session(run) as session:
        session.go()
    bundle = export_run(run.path)
    manifest = read_manifest(bundle)
    assert manifest.retrieves == 2 and not manifest.adapter
    assert any("no template can look those up" in note for note in manifest.notes)
    assert len((bundle / "demos.jsonl").read_text().splitlines()) == 4
    for file in task.glob("*.jsonl"):
        file.unlink()  # the bundle needs no task any more
    assert nesylora.load(bundle).messages("Name the mayor of Benn.")[-2]["content"] == "ANSWER: Corolt"
    assert nesylora.load(bundle).prompt == Prompt.model_validate_json((bundle / "prompt.json").read_text())


@pytest.mark.parametrize("lora", [{"dora": True}, {"rslora": True}, {"targets": ["q_proj", "embed_tokens"]}])
def test_what_is_merged_answers_as_the_adapter_does(
    trained: Callable[..., RunFolder], tiny_model: Callable[[str], Path], lora: dict[str, object]
) -> None:
    run = trained(lora, model=str(tiny_model("llama_tied")))
    bundle = export_run(run.path, wanted=Wanted(merged=True))
    base = tiny_model("llama_tied")
    assert answers(bundle, base, QUESTIONS, merged=True) == answers(bundle, base, QUESTIONS)
    assert any("DoRA" in note and "magnitudes" in note for note in read_manifest(bundle).notes) == ("dora" in lora)
    card = (bundle / "README.md").read_text()
    assert ("--enable-lora" in card) == ("dora" not in lora) and "`vllm serve merged`" in card, "none that is refused"


def test_a_run_without_an_adapter_is_a_prompt_for_the_bare_base(tiny_task: TinyTask, tmp_path: Path) -> None:
    run = new_run(tiny_task(), ["budget.rounds=0"], tmp_path / "runs")
    with open_session(run) as session:
        session.go()
    bundle = export_run(run.path)
    assert not (bundle / "adapter_config.json").exists()
    assert "PeftModel" not in (bundle / "README.md").read_text()
    assert any("no adapter" in note for note in read_manifest(bundle).notes)


def test_an_export_replaces_a_bundle_and_nothing_else(trained: Callable[..., RunFolder], tmp_path: Path) -> None:
    run = trained()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(BadInput, match="something else than a bundle"):
        export_run(run.path, tmp_path / "mine")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    first = export_run(run.path, tmp_path / "new")
    (first / "stray").write_text("")
    assert not (export_run(run.path, tmp_path / "new") / "stray").exists()


def test_what_cannot_be_wanted_is_refused_before_work() -> None:
    with pytest.raises(BadInput, match="f16, q8_0, lora"):
        Wanted(gguf=("q4",))
    with pytest.raises(BadInput, match="Modelfile is for a GGUF"):
        Wanted(ollama=True)
    with pytest.raises(BadInput, match="no bundle"):
        nesylora.load("/nowhere")


def test_a_kind_of_model_that_gguf_is_not_written_for_is_told_the_way_out(
    tiny_task: TinyTask, tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    run = new_run(tiny_task(model=str(tiny_model("gpt2"))), ["budget.rounds=0"], tmp_path / "runs")
    with open_session(run) as session:
        session.go()
    with pytest.raises(NesyLoraError, match="convert_hf_to_gguf"):
        export_run(run.path, wanted=Wanted(gguf=("f16",)))
    assert not (run.path / "bundle").exists() and not list(run.path.glob(".bundle*"))


def test_the_command_exports_and_checks(trained: Callable[..., RunFolder], capsys: pytest.CaptureFixture[str]) -> None:
    run = trained()
    assert command(["export", str(run.path), "--merged", "--check"]) == 0
    manifest = read_manifest(run.path / "bundle")
    assert {made.engine for made in manifest.checks} == {"transformers + peft", "transformers, merged"}
    for made in manifest.checks:
        assert (made.same, made.rows, made.split, made.other_prompts, made.holds) == (4, 4, "validation", 0, True)
    assert "| transformers, merged" in (run.path / "bundle" / "README.md").read_text()
    assert "4 of 4 validation answers the same" in " ".join(capsys.readouterr().out.split())
    assert command(["export", str(run.path), "--test-rows"]) == 2


def test_a_check_of_an_earlier_pair_is_refused(trained: Callable[..., RunFolder]) -> None:
    from export.check import check

    run = trained()
    bundle = export_run(run.path)
    take(run, None)  # the run has gone on
    with pytest.raises(BadInput, match="export it again"):
        check(run.path, bundle)


def test_no_answer_of_a_test_row_is_in_a_bundle(
    trained: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after a check on them; and what an older version has written is taken out before it is given away."""
    from export.check import check
    from export.hub import push

    run = trained()
    bundle = export_run(run.path)
    (bundle / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    made = check(run.path, bundle, "test", notify=lambda _: None)
    assert made.checks[0].same < made.checks[0].rows
    assert "test:" not in (bundle / "bundle.json").read_text()
    secret = Difference(row="test:1", ours="secret answer", theirs="")
    older = made.model_copy(update={"checks": (made.checks[0].model_copy(update={"differences": (secret,)}),)})
    (bundle / "bundle.json").write_text(older.model_dump_json())
    seen = []

    def look(_: object, repo_id: str, folder_path: Path, commit_message: str) -> CommitInfo:
        seen.append("".join(file.read_text(errors="replace") for file in folder_path.rglob("*") if file.is_file()))
        return CommitInfo("https://huggingface.co/me/m/commit/0", commit_message, "", "0")

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", lambda *_, **__: RepoUrl("https://huggingface.co/me/m"))
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", look)
    push(bundle, "me/m")
    assert "secret answer" not in seen[0] and "bundle.json" in seen[0]


def test_a_check_sees_what_is_wrong(trained: Callable[..., RunFolder]) -> None:
    """Weights that are not those of the run, and a template that is not: both are seen."""
    from export.check import check

    run = trained()
    bundle = export_run(run.path)
    (bundle / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    [made] = check(run.path, bundle, notify=lambda _: None).checks
    assert made.other_prompts == 4 and made.same < 4 and made.differences


class Serving(BaseHTTPRequestHandler):
    """A server of a bundle: it answers each question as `answers` says; what it was asked stands in `asked`."""

    answers: ClassVar[dict[str, str]] = {}
    asked: ClassVar[list[dict[str, object]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(body)
        answer = self.answers.get(body["messages"][-1]["content"])
        reply = json.dumps({"choices": [{"message": {"content": answer}}]}).encode()
        self.send_response(200 if answer is not None and self.path == "/v1/chat/completions" else 500)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def serving() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Serving)
    Thread(target=server.serve_forever, daemon=True).start()
    Serving.answers.clear()
    Serving.asked.clear()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def test_a_server_is_asked_bare_questions_and_compared(
    trained: Callable[..., RunFolder], serving: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained()
    export_run(run.path)
    questions = [f"Name the mayor of {town}." for town in ("Orrowmere", "Tallisk", "Benn", "Mirr")]
    ours = nesylora.Adapted(run.path, None, None, None).generate(questions)  # type: ignore[arg-type]
    Serving.answers.update(zip(questions, [*ours[:3], "something else"], strict=True))
    nowhere = ["--python", str(run.path / "nothing")]
    assert command(["export", str(run.path), "--check", "--server", serving, *nowhere]) == 2
    arguments = ["export", str(run.path), "--check", "--server", serving, "--model", "mine"]
    command(arguments)
    [made] = [made for made in read_manifest(run.path / "bundle").checks if made.engine == "server, mine"]
    assert (made.same, made.rows, made.differences[0].theirs) == (3, 4, "something else")
    assert {body["model"] for body in Serving.asked} == {"mine"} and {len(b["messages"]) for b in Serving.asked} == {1}
    Serving.answers.clear()
    assert command(arguments) == 1
    assert "did not answer" in capsys.readouterr().err


def test_without_a_hub_an_upload_fails_with_the_way_out(
    trained: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert command(["export", str(trained().path), "--push", "me/mayors"]) == 1
    assert "could not be uploaded to me/mayors" in capsys.readouterr().err


def test_the_scripts_that_ask_engines_import_nothing_of_ours() -> None:
    engines = Path(nesylora.__file__).parent / "export" / "engines"
    assert [file.name for file in engines.glob("with_*.py") if imported(file) & {*ROOMS, "nesylora"}] == []
    assert len(list(engines.glob("with_*.py"))) == 2
