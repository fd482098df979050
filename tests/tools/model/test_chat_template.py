"""Prompts as token ids, through chat templates of several kinds and through none."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from agent.errors import BadInput
from agent.reasoning import spoken
from agent.records.examples import Demo, Example, Prompt, Retrieval, Turn
from tests.conftest import CHATML
from tools.model.chat_template import Renderer

PROMPT = Prompt(system="Be brief.", demos=(Demo(question="One?", answer="1"),), template="Q: {question}")
EXAMPLE = Example(
    name="v:1", question="Two?", answer="2",
    turns=(Turn(role="user", content="Hello"), Turn(role="assistant", content="Hi")),
)  # fmt: skip
# As Gemma's: no system role, turns that end with a token other than the tokenizer's eos.
REFUSING = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<turn>{{ m['role'] }}\n{{ m['content'] }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
)
SILENT = REFUSING.replace("{{ raise_exception('System role not supported') }}", "{% set messages = messages[1:] %}")


@pytest.fixture
def tokenizer(tiny_model: Callable[[str], Path]) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model("llama"))


def test_every_message_is_in_its_turn_and_in_order(tokenizer: Any) -> None:
    assert Renderer(tokenizer).text(PROMPT, EXAMPLE) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nQ: One?<|im_end|>\n<|im_start|>assistant\n1<|im_end|>\n"
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi<|im_end|>\n"
        "<|im_start|>user\nQ: Two?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_few_shot_examples_of_the_rows_own_follow_the_prompts_in_its_template(tokenizer: Any) -> None:
    own = EXAMPLE.model_copy(update={"demos": (Demo(question="Far?", answer="a"), Demo(question="Near?", answer="b"))})
    before, after = Renderer(tokenizer).text(PROMPT, EXAMPLE).split("<|im_start|>user\nHello")
    shown = (
        "<|im_start|>user\nQ: Far?<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
        "<|im_start|>user\nQ: Near?<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
    )
    assert Renderer(tokenizer).text(PROMPT, own) == f"{before}{shown}<|im_start|>user\nHello{after}"


def test_a_prompt_that_retrieves_is_not_rendered_before_its_rows_were_looked_up(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="the 3 nearest train rows"):
        Renderer(tokenizer).text(PROMPT.model_copy(update={"retrieval": Retrieval(k=3)}), EXAMPLE)


def test_an_empty_system_text_is_no_turn(tokenizer: Any) -> None:
    assert "system" not in Renderer(tokenizer).text(Prompt(), EXAMPLE)


def test_a_system_text_of_the_rows_own_follows_the_prompts(tokenizer: Any) -> None:
    own = EXAMPLE.model_copy(update={"system": "Be kind."})
    assert Renderer(tokenizer).text(PROMPT, own).startswith("<|im_start|>system\nBe brief.\n\nBe kind.<|im_end|>\n")
    assert Renderer(tokenizer).text(Prompt(), own).startswith("<|im_start|>system\nBe kind.<|im_end|>\n")


def test_an_output_begins_with_the_thoughts_that_the_template_opens(tokenizer: Any) -> None:
    ids = tokenizer("Rome?</think>Paris", add_special_tokens=False)["input_ids"]
    assert Renderer(tokenizer).output(ids) == "Rome?</think>Paris"
    for opened, text in (("<think>\n", "<think>\nRome?</think>Paris"), ("<think></think>", "Rome?</think>Paris")):
        tokenizer.chat_template = f"{CHATML}{{% if add_generation_prompt %}}{opened}{{% endif %}}"
        assert Renderer(tokenizer).output(ids) == text
    tokenizer.chat_template = None
    assert Renderer(tokenizer).output(ids) == "Rome?</think>Paris"


@pytest.mark.parametrize("template", [REFUSING, SILENT])
def test_a_template_without_system_role_reads_it_in_the_first_user_turn(template: str, tokenizer: Any) -> None:
    tokenizer.chat_template = template
    text = Renderer(tokenizer).text(PROMPT, EXAMPLE)
    assert text.startswith("<turn>user\nBe brief.\n\nQ: One?<end_of_turn>\n<turn>assistant\n1")
    assert text.count("Be brief.") == 1


def test_without_a_chat_template_the_turns_are_plain_lines(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    assert Renderer(tokenizer).text(PROMPT, EXAMPLE.model_copy(update={"turns": ()})) == (
        "Be brief.\nUser:\nQ: One?\nAssistant:\n1\nUser:\nQ: Two?\nAssistant:\n"
    )


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("1\nUser:\nQ: Two?\nAssistant:", "1"),
        ("1\nUser:", "1"),
        ("User:\nQ: Two?", ""),
        ("1\nUsers: 2", "1\nUsers: 2"),
        ("The User: one", "The User: one"),
    ],
)
def test_without_a_chat_template_an_answer_ends_where_the_next_turn_begins(
    text: str, answer: str, tokenizer: Any
) -> None:
    tokenizer.chat_template = None
    renderer = Renderer(tokenizer)
    assert renderer.output(renderer.ids(text)) == answer


def test_the_start_of_text_is_written_once_with_a_template_and_without(tokenizer: Any) -> None:
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.chat_template = "<s>" + tokenizer.chat_template
    assert Renderer(tokenizer).prompt_ids(PROMPT, EXAMPLE).count(0) == 1
    tokenizer.chat_template = None
    row = Renderer(tokenizer).row(PROMPT, EXAMPLE)
    assert row.prompt[0] == 0
    assert 0 not in row.prompt[1:] + row.completion


def test_a_training_row_teaches_the_answer_and_the_end_of_the_turn(tokenizer: Any) -> None:
    row = Renderer(tokenizer).row(PROMPT, EXAMPLE)
    assert tokenizer.decode(row.prompt) == Renderer(tokenizer).text(PROMPT, EXAMPLE)
    assert tokenizer.decode(row.completion) == "2<|im_end|>"


@pytest.mark.parametrize("template", ["named", "only marked as special"])
def test_the_end_is_the_templates_own(template: str, tokenizer: Any) -> None:
    end = AddedToken("<end_of_turn>", special=True)
    if template == "named":
        tokenizer.add_special_tokens({"extra_special_tokens": [end]})
    else:
        tokenizer.add_tokens([end], special_tokens=True)
    tokenizer.chat_template = REFUSING
    assert Renderer(tokenizer).end == tokenizer.convert_tokens_to_ids("<end_of_turn>") != tokenizer.eos_token_id


@pytest.mark.parametrize("template", [None, "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"])
def test_where_no_template_names_an_end_it_is_the_tokenizers(template: str | None, tokenizer: Any) -> None:
    tokenizer.chat_template = template
    assert Renderer(tokenizer).end == tokenizer.eos_token_id


def test_what_is_in_the_prompt_already_does_not_count(tokenizer: Any) -> None:
    row = Renderer(tokenizer).scored_row(PROMPT, EXAMPLE, "ANSWER: ", "Heskzan")
    whole = tokenizer("ANSWER: Heskzan", add_special_tokens=False)["input_ids"]
    assert (row.prompt + row.completion)[-len(whole) :] == whole
    assert tokenizer.decode(row.completion).strip() == "Heskzan"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(context=st.text(max_size=8), scored=st.text(max_size=8))
def test_given_and_scored_are_one_text_and_all_of_scored_counts(context: str, scored: str, tokenizer: Any) -> None:
    render = Renderer(tokenizer)
    row, start = render.scored_row(Prompt(), EXAMPLE, context, scored), len(render.prompt_ids(Prompt(), EXAMPLE))
    assert row.prompt[start:] + row.completion == render.ids(context + scored)
    assert tokenizer.decode(row.completion).endswith(tokenizer.decode(render.ids(scored)))


# --- templates that are of another mind -------------------------------------------------------------

DEAF = CHATML.replace("{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}", "")
PUSHY = CHATML.replace("{% if add_generation_prompt %}", "").replace("assistant\n{% endif %}", "assistant\n")
THINKING = CHATML.replace(
    "assistant\n{% endif %}",
    "assistant\n{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}",
)


@pytest.mark.parametrize("template", [DEAF, PUSHY], ids=["never", "always"])
def test_the_assistants_header_belongs_to_the_prompt_whatever_the_template_makes_of_being_asked(
    template: str, tokenizer: Any
) -> None:
    tokenizer.chat_template = CHATML
    wanted = Renderer(tokenizer).row(PROMPT, EXAMPLE)
    tokenizer.chat_template = template
    assert Renderer(tokenizer).row(PROMPT, EXAMPLE) == wanted
    assert (
        Renderer(tokenizer)
        .text(Prompt(), EXAMPLE.model_copy(update={"question": "§?"}))
        .endswith("<|im_start|>user\n§?<|im_end|>\n<|im_start|>assistant\n")
    )


def test_switches_reach_the_template_for_questions_and_training_rows_alike(tokenizer: Any) -> None:
    tokenizer.chat_template = THINKING
    quick, plain = Renderer(tokenizer, {"enable_thinking": False}), Renderer(tokenizer)
    quick.check("m")
    assert quick.text(PROMPT, EXAMPLE) == plain.text(PROMPT, EXAMPLE) + "<think>\n\n</think>\n\n"
    assert quick.row(PROMPT, EXAMPLE).prompt == quick.prompt_ids(PROMPT, EXAMPLE)
    assert Renderer(tokenizer, {"enable_thinking": True}).text(PROMPT, EXAMPLE) == plain.text(PROMPT, EXAMPLE)


@pytest.mark.parametrize(
    ("template", "switches", "complaint"),
    [
        (THINKING, {"enable_thought": False}, "enable_thought: the chat template of model 'm' does not read it"),
        (None, {"enable_thinking": False}, "'m' has no chat template, so chat_template_kwargs.enable_thinking has no"),
        ("{{ raise_exception('tools only') }}", {}, "'m' cannot render a question: tools only"),
        ("{{ messages | length }}", {}, "'m' leaves the user's question out"),
    ],
)
def test_a_template_that_cannot_do_it_is_refused_in_a_sentence(
    template: str | None, switches: dict[str, Any], complaint: str, tokenizer: Any
) -> None:
    tokenizer.chat_template = template
    with pytest.raises(BadInput, match=complaint):
        Renderer(tokenizer, switches).check("m")


@pytest.mark.parametrize("template", [None, "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"])
def test_a_model_that_cannot_know_where_to_end_is_refused(template: str | None, tokenizer: Any) -> None:
    tokenizer.chat_template, tokenizer.eos_token = template, None
    with pytest.raises(BadInput, match=r"nothing tells model 'm' where an answer ends.*Set eos_token"):
        Renderer(tokenizer).check("m")
    with pytest.raises(BadInput, match="where an answer ends"):
        _ = Renderer(tokenizer).end
    tokenizer.chat_template = CHATML  # names one itself
    assert Renderer(tokenizer).end == tokenizer.convert_tokens_to_ids("<|im_end|>")


# --- templates that open thoughts -------------------------------------------------------------------

OPENING = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")  # as DeepSeek-R1's
# As Qwen3-Thinking's: empty thoughts stand before the answers of past turns.
SHOWING = OPENING.replace(
    "{{ message['content'] }}",
    "{% if message['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ message['content'] }}",
)
CLOSING = SHOWING.replace("<think>\n\n</think>\n\n{%", "</think>{%")  # as DeepSeek-V3.1's
VISIBLE = OPENING.replace("<think>", "\u25c1think\u25b7")  # as Kimi-VL-Thinking's
SWITCHED = OPENING.replace("<think>\n{%", "{% if enable_thinking is not false %}<think>\n{% endif %}{%")


@pytest.mark.parametrize(
    ("template", "closed"),
    [
        (OPENING, "</think>\n\n"),
        (SHOWING, "\n</think>\n\n"),
        (CLOSING, "</think>"),
        (VISIBLE, "\u25c1/think\u25b7\n\n"),
        (SWITCHED, "</think>\n\n"),
    ],
    ids=["opening", "showing", "closing", "visible", "switched"],
)
def test_where_the_template_opens_thoughts_an_answer_is_learned_and_measured_behind_them(
    template: str, closed: str, tokenizer: Any
) -> None:
    tokenizer.chat_template = template
    render = Renderer(tokenizer)
    row = render.row(PROMPT, EXAMPLE)
    assert row.prompt == render.prompt_ids(PROMPT, EXAMPLE), "training goes on from where inference does"
    assert tokenizer.decode(row.completion) == f"{closed}2<|im_end|>"
    assert spoken(render.output(row.completion)) == "2", "what was learned is what is judged"
    measured = render.scored_row(PROMPT, EXAMPLE, "ANSWER: ", "Heskzan")
    assert tokenizer.decode(measured.prompt) == render.text(PROMPT, EXAMPLE) + f"{closed}ANSWER:"
    assert tokenizer.decode(measured.completion) == " Heskzan"
    whole = render.scored_row(PROMPT, EXAMPLE, "", "2")
    assert whole.prompt + whole.completion == [*row.prompt, *row.completion[:-1]]


@pytest.mark.parametrize("template", [OPENING, SHOWING])
def test_a_references_own_thoughts_take_the_place_of_those_that_the_template_opens(
    template: str, tokenizer: Any
) -> None:
    tokenizer.chat_template = template
    render = Renderer(tokenizer)
    answer = "<think>\nRome?\n</think>\n\nParis"
    row = render.row(PROMPT, EXAMPLE.model_copy(update={"answer": answer}))
    assert tokenizer.decode(row.completion) == "Rome?\n</think>\n\nParis<|im_end|>"
    measured = render.scored_row(PROMPT, EXAMPLE, answer.removesuffix("Paris"), "Paris")
    assert tokenizer.decode(measured.prompt).endswith("<think>\nRome?\n</think>\n\n")
    assert tokenizer.decode(measured.completion) == "Paris"
    thinking = EXAMPLE.model_copy(update={"answer": "<reasoning>Rome?</reasoning>Paris"})
    assert spoken(render.output(render.row(PROMPT, thinking).completion)) == "Paris"


def test_the_tag_that_closes_thoughts_is_read_even_where_it_is_a_special_token(tokenizer: Any) -> None:
    tokenizer.add_tokens([AddedToken(tag, special=True) for tag in ("<think>", "</think>")], special_tokens=True)
    tokenizer.chat_template = OPENING
    render = Renderer(tokenizer)
    assert spoken(render.output(render.row(PROMPT, EXAMPLE).completion)) == "2"
    assert spoken(render.output(render.ids("Rome?"))) == ""


def test_open_thoughts_are_reported_with_the_switch_that_leaves_them_out(tokenizer: Any) -> None:
    def remarks(template: str | None, **switches: Any) -> list[str]:
        tokenizer.chat_template = template
        return Renderer(tokenizer, switches).remarks()

    [plain], [switched] = remarks(OPENING), remarks(SWITCHED)
    assert "opens thoughts (<think>)" in plain and "chat_template_kwargs" not in plain
    assert switched == f"{plain} Set chat_template_kwargs: {{enable_thinking: false}} to open none."
    assert remarks(SWITCHED, enable_thinking=False) == remarks(CHATML) == remarks(None) == []


@pytest.mark.parametrize("template", [CHATML, None])
def test_many_prompts_have_the_ids_that_each_has_alone(template: str | None, tokenizer: Any) -> None:
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.chat_template = template
    render = Renderer(tokenizer)
    examples = [EXAMPLE, Example(name="v:2", question="Three? " * 9, answer="3")]
    assert render.prompts_ids(PROMPT, examples) == [render.prompt_ids(PROMPT, example) for example in examples]
    assert render.prompts_ids(PROMPT, []) == []
