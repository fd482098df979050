"""A chat template with the refined prompt inside renders what the run measured, in every kind of model template."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from agent.records.examples import Demo, Example, Prompt, Retrieval, Turn
from agent.records.served import ServedMessage
from export.chat_template import refined_template, renders_alike
from tests.conftest import CHATML
from tests.fixtures.serving import pair
from tests.tools.model.test_chat_template import REFUSING, SILENT
from tools.model.chat_template import Renderer
from ui.serve.models import Served

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou "
    "are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + "
    "message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}{{ raise_exception('System role not supported') }}{%- endif -%}
{%- for message in messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception('roles must alternate') }}
    {%- endif -%}
    {%- if message['role'] == 'assistant' -%}
        {%- set role = 'model' -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\\n' }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\\n'}}
{%- endif -%}
"""
QWEN = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are Qwen.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or message.role == "assistant" %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""
HEADLESS = (  # writes the assistant's header only before an answer, as Mistral's
    "  {% for m in messages %}{% if m['role'] == 'assistant' %} A: {{ m['content'] }}<|im_end|>{% else %}[INST] "
    "{{ m['content'] }} [/INST]{% endif %}{% endfor %}"
)
TEMPLATES = {
    "smollm2": SMOLLM2, "gemma": GEMMA, "qwen": QWEN, "chatml": CHATML, "refusing": REFUSING, "silent": SILENT,
    "headless": HEADLESS, "none": None,
}  # fmt: skip
DEMOS = (
    Demo(question="Say \"{a}\" \\ 'b'?", answer="{{ a }}\n{% b %} {# c #}\t\\n"),
    Demo(question="Größe 😀?", answer="\u2028 ½ '\"'"),
)
PROMPTS = {
    "nothing": Prompt(),
    "system": Prompt(system='Start with "ANSWER: ".\n\n{} it\'s \\n'),
    "demos": Prompt(demos=DEMOS),
    "template": Prompt(template='Q: "{question}"\nA:\n'),
    "twice": Prompt(system="S", template="{question} Again: {question}"),
    "all": Prompt(system="Be brief. {{ x }}", demos=DEMOS, template="{question}\n{% raw %}"),
}


@pytest.fixture(params=TEMPLATES)
def tokenizer(request: pytest.FixtureRequest, tiny_model: Callable[[str], Path]) -> Any:
    made = AutoTokenizer.from_pretrained(tiny_model("llama"))
    made.chat_template = TEMPLATES[request.param]
    return made


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_a_bare_question_gets_the_ids_that_the_run_measured(tokenizer: Any, prompt: Prompt) -> None:
    render = Renderer(tokenizer)
    template = refined_template(render, prompt)
    assert template is not None
    served = AutoTokenizer.from_pretrained(tokenizer.name_or_path, chat_template=template)
    turns = (Turn(role="user", content="Hello {}"), Turn(role="assistant", content="Hi"))
    for example in (
        Example(name="user:1", question='What "is" {question}?\n', answer=""),
        Example(name="user:2", question="And then?", answer="", turns=turns),
    ):
        bare = [*(turn.model_dump() for turn in example.turns), {"role": "user", "content": example.question}]
        ids = served.apply_chat_template(bare, add_generation_prompt=True, return_dict=True)["input_ids"]
        assert ids == render.prompt_ids(prompt, example)
        whole = Renderer.messages(prompt, example)
        assert served.apply_chat_template(whole, add_generation_prompt=True, return_dict=True)["input_ids"] == ids


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(texts=st.lists(st.text(max_size=12), min_size=4, max_size=4))
def test_no_text_breaks_out_of_the_template(texts: list[str], tokenizer: Any) -> None:
    system, question, answer, template = texts
    demos = (Demo(question=question, answer=answer),)
    prompt = Prompt(system=system, demos=demos, template=template.replace("{", "") + "{question}")
    render = Renderer(tokenizer)
    try:
        readable = render.prompt_ids(prompt, Example(name="user:1", question="q", answer=""))
    except UnicodeEncodeError:
        return
    assert readable and refined_template(render, prompt) is not None


def test_a_clients_own_system_message_takes_the_prompts_place(tiny_model: Callable[[str], Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model("llama"))
    own = [{"role": "system", "content": "Mine."}, {"role": "user", "content": "q"}]
    before = tokenizer.apply_chat_template(own, tokenize=False, add_generation_prompt=True)
    tokenizer.chat_template = refined_template(Renderer(tokenizer), PROMPTS["all"])
    assert tokenizer.apply_chat_template(own, tokenize=False, add_generation_prompt=True) == before
    assert "brief" in tokenizer.apply_chat_template(own[1:], tokenize=False)


@pytest.mark.parametrize("prompt", ["nothing", "template", "all"])
def test_a_developers_message_is_a_system_message_as_for_our_own_server(
    prompt: str, tokenizer: Any, tiny_model: Callable[[str], Path]
) -> None:
    template = refined_template(Renderer(tokenizer), PROMPTS[prompt])
    exported = AutoTokenizer.from_pretrained(tokenizer.name_or_path, chat_template=template)
    own = [{"role": "developer", "content": "Mine."}, {"role": "user", "content": "q"}]
    ids = exported.apply_chat_template(own, add_generation_prompt=True, return_dict=True)["input_ids"]
    served = Served(pair(tiny_model("llama"), prompt=PROMPTS[prompt]), Renderer(tokenizer), None)
    assert ids == served.prepared([ServedMessage.model_validate(message) for message in own]).ids


def test_where_the_model_knows_no_system_message_a_clients_own_stands_before_its_question(
    tiny_model: Callable[[str], Path],
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model("llama"))
    tokenizer.chat_template = GEMMA
    tokenizer.chat_template = refined_template(Renderer(tokenizer), PROMPTS["all"])
    own = [{"role": "system", "content": "Mine."}, {"role": "user", "content": "q"}]
    text = tokenizer.apply_chat_template(own, tokenize=False, add_generation_prompt=True)
    assert text == "<s><start_of_turn>user\nMine.\n\nq<end_of_turn>\n<start_of_turn>model\n"


def test_switches_of_the_template_are_set_and_a_client_may_set_them_otherwise(
    tiny_model: Callable[[str], Path],
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model("llama"))
    tokenizer.chat_template = QWEN
    tokenizer.chat_template = refined_template(Renderer(tokenizer, {"enable_thinking": False}), Prompt(system="S"))
    asked = [{"role": "user", "content": "q"}]
    assert tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True).endswith("</think>\n\n")
    thinking = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True, enable_thinking=True)
    assert thinking.endswith("<|im_start|>assistant\n")


def test_a_model_without_a_template_keeps_its_start_of_text(tiny_model: Callable[[str], Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model("llama"))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.chat_template = None
    template = refined_template(Renderer(tokenizer), PROMPTS["all"])
    assert template is not None and template.startswith(("{%- if", "{{- bos_token }}"))


def test_what_is_retrieved_is_left_out_and_the_rest_stands(tiny_model: Callable[[str], Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model("llama"))
    prompt = PROMPTS["all"].model_copy(update={"retrieval": Retrieval(k=2)})
    assert refined_template(Renderer(tokenizer), prompt) == refined_template(Renderer(tokenizer), PROMPTS["all"])


def test_a_template_that_renders_otherwise_is_noticed(tiny_model: Callable[[str], Path]) -> None:
    render = Renderer(AutoTokenizer.from_pretrained(tiny_model("llama")))
    assert not renders_alike(render, PROMPTS["system"], CHATML)
