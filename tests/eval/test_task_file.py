"""Reading a task.yaml: what is accepted, and the sentence for what is not."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agent.config.llm import Llm
from agent.config.task import TaskConfig
from agent.errors import BadInput
from eval.tasks.task import load_config

HEAD = "name: valley\ncontent:\n  - kind: contains\n"
FILES = "data: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a sound task.yaml."""
    (tmp_path / "task.yaml").write_text(HEAD + FILES)
    return tmp_path


def refusal(path: Path, overrides: Sequence[str] = ()) -> str:
    with pytest.raises(BadInput) as caught:
        load_config(path, overrides)
    return str(caught.value)


def test_a_file_or_its_folder_gives_the_settings(folder: Path) -> None:
    config = load_config(folder)
    assert config == load_config(folder / "task.yaml")
    assert (config.name, config.data.train) == ("valley", "train.jsonl")


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("budjet: 3", 5, "unknown key 'budjet'; did you mean 'budget'?"),
        ("budget:\n  ronds: 3", 6, "unknown key 'ronds'; did you mean 'rounds'?"),
        ("budget: {xyzzy: 3}", 5, "unknown key 'xyzzy'; the keys here are rounds, minutes, train_tokens, usd"),
        ("style:\n  - kind: starts_with\n    txt: a\n    text: b", 7, "unknown key 'txt'; did you mean 'text'?"),
        ("style:\n  - kind: json\n    shema: {}", 7, "unknown key 'shema'; did you mean 'schema'?"),
        ("style:\n  - kind: start_with\n    text: b", 6, "unknown kind 'start_with'; did you mean 'starts_with'?"),
        ("style:\n  - text: b", 6, "the key 'style.0.kind' is missing; it must be one of"),
        ("style:\n  - kind: regex", 6, "the key 'style.0.pattern' is missing"),
        ("style:\n\n  - kind: regex\n    pattern: '('", 7, "'style.0': 'pattern' is not a regular expression"),
        ("style:\n  - kind: judge\n    rubrik: a\n    rubric: b", 7, "unknown key 'rubrik'; did you mean 'rubric'?"),
        ("style:\n  - kind: judge", 6, "the key 'style.0.rubric' is missing"),
        ("style:\n  - kind: judge\n    rubric: ' '", 7, "'style.0.rubric': the rubric is empty"),
        ("style:\n  - kind: judge\n    rubric: polite\n    scale: 11", 8, "'style.0.scale' must be at most 10, but"),
        ("style:\n  - {kind: judge, rubric: x, compare: true, scale: 7}", 6, "'style.0': `scale` has no use beside"),
        (
            "style:\n  - kind: reward_model\n    model: x",
            6,
            "unknown kind 'reward_model'; the kinds are bullets, forbid, json, judge, regex",
        ),
        ("llm: {}", 5, "the key 'llm.model' is missing"),
        (
            "llm:\n  model: gpt\n  judge:\n    price:",
            8,
            "'llm.judge.price': only `temperature` may be null; leave the key",
        ),
        ("device: gpu", 5, "'device' must be one of 'auto', 'cpu', 'cuda' or 'mps', but it is 'gpu'"),
        ("budget:\n  rounds: soon", 6, "'budget.rounds' must be a whole number, but it is 'soon'"),
        ("lora:\n  rank: 4096", 6, "'lora.rank' must be at most 256, but it is 4096"),
        ("lora:\n  targets: 5", 6, "'lora.targets' must be text (put it in quotes), but it is 5"),
        ("gate:", 5, "'gate' must be a section with keys of its own, but it is empty"),
        (
            "prompt:\n  demos:\n  - question: Snow?\n    answer: no",
            8,
            "must be text (put it in quotes), but it is false",
        ),
        ("prompt:\n  template: Hello", 5, "'prompt': the template must contain {question}"),
        ("name: again", 5, "the key 'name' stands here a second time"),
        ("style: [}", 5, "not valid YAML"),
        ("budget:\n\t rounds: 3", 6, "not valid YAML: found character '\\t' that cannot start any token"),
    ],
)
def test_a_fault_is_named_with_its_line(folder: Path, text: str, line: int, expected: str) -> None:
    (folder / "task.yaml").write_text(HEAD + FILES + text + "\n")
    message = refusal(folder)
    assert message.startswith(f"{folder}/task.yaml, line {line}: ")
    assert expected in message
    assert "\n" not in message


def test_each_fault_has_its_own_line_of_text(folder: Path) -> None:
    (folder / "task.yaml").write_text("nam: valley\ndata: {path: rows.jsonl, cut: {test: 2}}\ncontent: []\n")
    messages = refusal(folder).split("\n")
    place = f"{folder}/task.yaml"
    assert messages == [
        f"{place}: the key 'name' is missing",
        f"{place}, line 1: unknown key 'nam'; did you mean 'name'?",
        f"{place}, line 2: 'data.cut.test' must be below 1, but it is 2",
        f"{place}, line 3: 'content' must be a list of at least 1, but it is an empty list",
    ]


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        (
            "- kind: judge\n  rubric: polite\n  say: Be polite.",
            3,
            "'content.0': 'say' and 'show' are for a judge of style",
        ),
        ("- kind: reward_model", 3, "the key 'content.0.model' is missing"),
        ("- kind: reward_model\n  model: x\n  low: 5", 3, "'content.0': `low`, 5, must be below `high`, 5"),
        ("- kind: reward_model\n  model: x\n  high: .inf", 5, "'content.0.high': Input should be a finite number"),
        (
            "- kind: reward_model\n  model: x\n  batch_size: 0",
            5,
            "'content.0.batch_size' must be at least 1, but it is 0",
        ),
    ],
)
def test_a_fault_of_who_rates_content_is_named_with_its_line(folder: Path, text: str, line: int, expected: str) -> None:
    (folder / "task.yaml").write_text(f"name: valley\ncontent:\n{text}\nllm: {{model: gpt}}\n{FILES}")
    message = refusal(folder)
    assert message.startswith(f"{folder}/task.yaml, line {line}: {expected}")


def test_a_judge_needs_an_llm(folder: Path) -> None:
    judge = "style: [{kind: judge, rubric: polite}]\n"
    (folder / "task.yaml").write_text(HEAD + FILES + judge)
    assert "scorers of `kind: judge` need an `llm:` section" in refusal(folder)
    (folder / "task.yaml").write_text(HEAD + FILES + judge + "llm: {model: gpt}\n")
    assert load_config(folder).roles == ("judge",)


def test_a_fault_of_the_whole_file_needs_no_line(folder: Path) -> None:
    (folder / "task.yaml").write_text(HEAD + FILES + "planner: llm\n")
    assert refusal(folder).startswith(f"{folder}/task.yaml: `planner: llm`")


@pytest.mark.parametrize(
    "content", [b"", b"- a\n", b"just text", b"name: \xff", b"when: 2024-13-45", b"\x00", b"[" * 5000]
)
def test_what_is_no_task_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "task.yaml").write_bytes(content)
    assert str(tmp_path / "task.yaml") in refusal(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "task.yaml") in refusal(tmp_path)
    assert "give a task.yaml" in refusal(tmp_path / "nowhere")


def test_yaml_cannot_run_code(folder: Path) -> None:
    (folder / "task.yaml").write_text(HEAD + FILES + "about: !!python/object/apply:os.getcwd []\n")
    assert "line 5: not valid YAML" in refusal(folder)


def test_overrides_reach_sections_lists_and_types(folder: Path) -> None:
    changes = ["budget.rounds=3", "llm.model=gpt", "content.0={kind: number, marker: '='}", "lora.learning_rate=1e-4"]
    config = load_config(folder, changes)
    assert (config.budget.rounds, config.lora.learning_rate) == (3, 1e-4)
    assert config.llm == Llm(model="gpt")
    assert config.content[0].model_dump() == {"kind": "number", "marker": "="}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("budjet.rounds=3", "unknown key 'budjet'; did you mean 'budget'?"),
        ("budget.round=3", "unknown key 'round'; did you mean 'rounds'?"),
        ("budget.rounds=-1", "must be at least 0"),
        ("content.7.kind=exact", "'7' is not one of the 1 entries"),
        ("budget.rounds", "write it as key=value"),
        ("=3", "write it as key=value"),
        ("about=[", "expected the node content"),
    ],
)
def test_a_faulty_override_is_named(folder: Path, override: str, expected: str) -> None:
    message = refusal(folder, [override])
    assert message.startswith(f"override '{override}': ")
    assert expected in message


@pytest.mark.parametrize("given_by", ["file", "override"])
@pytest.mark.parametrize("key", ["checkpoints", "memory.postgres"])
@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:secret@db/x",
        "postgresql://me:se/secret@db/x",
        "postgresql://me:se@secret@db/x",
        "postgresql://me:se?secret#@db/x",
        "postgresql://me:se secret@db/x",
        "postgresql://me:secret",  # as YAML reads one that goes on with a # behind a space
        "postgresql://db/x?user=me&password=secret",
        "postgresql://db/x?pass%77ord=secret",
        "postgresql://me%3Asecret@db/x",
        "POSTGRESQL://me:secret@db/x",
        "host=db password=secret",
        "me:secret@db",
    ],
)
def test_a_password_in_an_address_is_refused_and_not_repeated(
    folder: Path, address: str, key: str, given_by: str
) -> None:
    section, _, name = key.rpartition(".")
    values = {section: {name: address}} if section else {name: address}
    if given_by == "file":
        (folder / "task.yaml").write_text(HEAD + FILES + yaml.safe_dump(values))
    message = refusal(folder, [] if given_by == "file" else [f"{key}={json.dumps(address)}"])
    assert "write it as postgresql://USER@HOST/DATABASE" in message or "a password must not stand in a file" in message
    if "://" in address or given_by == "file":
        assert "secret" not in message
    with pytest.raises(ValueError) as caught:
        TaskConfig.model_validate({**yaml.safe_load(HEAD + FILES), **values})
    assert "secret" not in str(caught.value), "nor for who calls pydantic"


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me@db.example.org:5432/x?sslmode=require",
        "postgres://db",
        "postgresql:///x?host=/run/postgresql",
        "postgresql://me@[::1]:5432/x",
        "postgresql://me@a:5432,b:5433/x",
        "postgresql://me@%2Frun%2Fpostgresql/x",
    ],
)
def test_an_address_without_a_password_is_taken(folder: Path, address: str) -> None:
    config = load_config(folder, [f"checkpoints={address}", f"memory.postgres={address}"])
    assert config.checkpoints == config.memory.postgres == address
    assert load_config(folder, ["checkpoints=${PLACE}"]).checkpoints == "${PLACE}"


def test_a_fault_beside_an_override_is_still_the_file_s(folder: Path) -> None:
    (folder / "task.yaml").write_text(HEAD + FILES + "budget:\n  ronds: 3\n")
    assert ", line 6: unknown key 'ronds'" in refusal(folder, ["budget.rounds=3"])


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=2),
    max_leaves=4,
)
PATHS = [
    "name",
    "data",
    "data.cut",
    "prompt.demos",
    "content",
    "content.0",
    "content.0.kind",
    "style",
    "style.0",
    "lora.targets",
]


@given(st.sampled_from(PATHS), anything)
def test_no_value_anywhere_breaks_the_reader(
    tmp_path_factory: pytest.TempPathFactory, path: str, value: object
) -> None:
    folder = tmp_path_factory.getbasetemp()
    text = yaml.safe_dump({"name": "valley", "content": [{"kind": "exact"}], "data": {"path": "x.csv"}, "style": [{}]})
    (folder / "task.yaml").write_text(text)
    try:
        load_config(folder, [f"{path}={json.dumps(value)}"])
    except BadInput as error:
        place = str(error).partition(": ")[0]
    else:
        place = "override"
    assert place.startswith((str(folder), "override"))


def test_an_override_inside_a_faulty_section_is_blamed(folder: Path) -> None:
    assert refusal(folder, ["data.path=rows.csv"]).startswith(
        "override 'data.path=rows.csv': 'data': give either `path`"
    )
    (folder / "task.yaml").write_text(HEAD + FILES + "style: [{kind: regex, pattern: x}]\n")
    assert refusal(folder, ["style.0.pattern=("]).startswith(
        "override 'style.0.pattern=(': 'style.0': 'pattern' is not"
    )
