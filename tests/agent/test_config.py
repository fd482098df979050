"""What a task may not say, and the error message for it. (Reading the file is tested in test_task_file.py.)"""

from typing import Any

import pytest
from pydantic import ValidationError

from agent.config.task import TaskConfig
from agent.records.examples import Demo, Prompt
from tests.fixtures.rounds import a_config


def refusal(**changes: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        a_config(**changes)
    return str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "give `train`, `validation` and `test` files, or one `path`"),
        ({"train": "a.jsonl", "validation": "b.jsonl"}, "give `train`, `validation` and `test` files"),
        ({"path": "a.jsonl", "test": "b.jsonl"}, "give either `path` (one file to cut) or"),
        ({"path": "a.jsonl", "hub": "gsm8k"}, "give `path` or `hub`, not both"),
        ({"hub": "gsm8k"}, "a hub data set needs `train`"),
        ({"path": "a.jsonl", "cut": {"validation": 0.5, "test": 0.5}}, "leave some rows to train on"),
        ({"path": "a.jsonl", "limit": {"train": 0}}, "greater than or equal to 1"),
    ],
)
def test_the_data_must_say_where_every_split_comes_from(data: dict[str, Any], message: str) -> None:
    assert message in refusal(data=data)


@pytest.mark.parametrize(
    "data", [{"path": "a.jsonl"}, {"hub": "gsm8k", "train": "train"}, {"path": "a.jsonl", "cut": {"validation": 0.5}}]
)
def test_one_file_or_a_hub_data_set_will_do(data: dict[str, Any]) -> None:
    assert a_config(data=data).data.model_dump(exclude_unset=True) == data


def test_a_template_without_the_question_is_refused() -> None:
    assert "the template must contain {question}" in refusal(prompt={"template": "Answer:"})


@pytest.mark.parametrize("needy", [{"planner": "llm"}, {"edit": {"editor": "textgrad"}}])
def test_what_needs_an_llm_asks_for_its_section(needy: dict[str, Any]) -> None:
    assert "need an `llm:` section with at least `model`" in refusal(**needy)
    assert a_config(**needy, llm={"model": "gpt"}).llm is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora": {"rank": 4096}}, "less than or equal to 256"),
        ({"lora": {"learning_rate": 5}}, "less than or equal to 0.01"),
        ({"lora": {"epochs": float("nan")}}, "lora.epochs"),
        ({"budget": {"minutes": 0}}, "greater than 0"),
        ({"content": []}, "at least 1 item"),
        ({"content": [{"kind": "vibes"}]}, "'exact', 'contains', 'number', 'choice', 'f1'"),
        ({"policy": "w -> q"}, "there is no policy 'w -> q'. There are: rules, learned"),
        ({"name": "../escape"}, "match pattern"),
        ({"bugdet": {}}, "Extra inputs are not permitted"),
    ],
)
def test_values_out_of_bounds_are_refused_with_the_bounds(changes: dict[str, Any], message: str) -> None:
    assert message in refusal(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"processes": 1}, "set that to the number of GPUs, at least 2"),
        ({"lora": {"dora": True}}, "`shard` cannot be combined with `lora.dora`"),
        ({"lora": {"qlora": True}}, "`shard` cannot be combined with `lora.qlora`"),
        ({"lora": {"options": {"modules_to_save": ["lm_head"]}}}, "with `lora.options.modules_to_save`"),
        ({"lora": {"options": {"init_lora_weights": "orthogonal"}}}, "with `lora.options.init_lora_weights`"),
    ],
)
def test_a_base_is_divided_only_where_nothing_needs_it_whole(changes: dict[str, Any], message: str) -> None:
    assert message in refusal(**{"shard": True, "processes": 2, **changes})
    assert a_config(shard=True, processes=2, lora={"options": {"init_lora_weights": "gaussian"}}).shard


def test_no_setting_can_hold_a_key() -> None:
    assert "Extra inputs" in refusal(llm={"model": "gpt", "api_key": "sk-123"})


def test_a_role_has_what_it_sets_and_else_what_all_have_also_when_written_and_read() -> None:
    llm = {"model": "gpt", "temperature": 0.5, "judge": {"model": "o3", "temperature": None}}
    config = a_config(llm=llm)
    again = TaskConfig.model_validate_json(config.model_dump_json(by_alias=True))
    for llm in (config.llm, again.llm):
        assert llm is not None
        assert (llm.of("judge").model, llm.of("judge").temperature) == ("o3", None)
        assert (llm.of("editor").model, llm.of("editor").temperature) == ("gpt", 0.5)


@pytest.mark.parametrize("key", ["model", "base_url", "key_variable", "max_tokens", "price"])
def test_a_role_leaves_out_what_it_does_not_set_and_only_the_temperature_may_be_null(key: str) -> None:
    message = refusal(
        planner="llm", budget={"usd": 1}, llm={"model": "gpt", "price": {"input": 1}, "planner": {key: None}}
    )
    assert f"llm.planner.{key}" in message and "only `temperature` may be null" in message


def test_the_seed_prompt_becomes_a_prompt() -> None:
    config = a_config(prompt={"system": "Answer.", "demos": [{"question": "2+2?", "answer": "4"}]})
    assert config.prompt.prompt() == Prompt(system="Answer.", demos=(Demo(question="2+2?", answer="4"),))


def test_the_chat_templates_own_arguments_can_be_set_and_what_we_give_it_cannot() -> None:
    plain, quick = a_config(), a_config(chat_template_kwargs={"enable_thinking": False})
    assert plain.base != quick.base, "another text is another answer"
    ours = {"messages": [], "add_generation_prompt": False, "enable_thinking": False}
    assert "add_generation_prompt, messages cannot be set" in refusal(chat_template_kwargs=ours)
