"""A Modelfile. Its template was rendered by Go's text/template, as Ollama does: see docs/export.md."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from agent.errors import NesyLoraError
from agent.records.examples import Demo, Prompt
from export.base import Base
from export.formats.ollama import modelfile
from export.manifest import Manifest
from tests.export.test_template import GEMMA, SMOLLM2
from tools.model.chat_template import Renderer

PROMPT = Prompt(system='Say "A".', demos=(Demo(question="One?", answer="{{ 1 }} "),), template="Q: {question}\n")
MANIFEST = Manifest(
    name="t", task="t", run="r", created="", version="", base=Base(), adapter=True, prompt="p", refined_template=True,
    max_new_tokens=8, gguf=("t-f16.gguf", "t-q8_0.gguf"), validation=1.0, seed_validation=0.0,
)  # fmt: skip
TURN = '{{- if $last }}{{ "Q: " }}{{ .Content }}{{ "\\n" }}{{- else }}{{ .Content }}{{- end }}'


@pytest.fixture
def render(tiny_model: Callable[[str], Path]) -> Callable[[str], Renderer]:
    def with_template(template: str) -> Renderer:
        tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model("llama"))
        tokenizer.chat_template = template
        return Renderer(tokenizer)

    return with_template


def test_the_prompt_stands_in_it_in_ollamas_words(render: Callable[[str], Renderer]) -> None:
    text = modelfile(render(SMOLLM2), PROMPT, MANIFEST)
    assert text.startswith('FROM ./t-f16.gguf\nTEMPLATE """{{- $before := "" }}')
    assert TURN in text
    assert 'SYSTEM """Say "A"."""\nMESSAGE user """Q: One?\n"""\nMESSAGE assistant """{{ 1 }} """\n' in text
    assert "PARAMETER temperature 0\nPARAMETER num_predict 8\n" in text
    assert 'PARAMETER stop """<|im_end|>"""' in text


def test_without_a_system_turn_its_text_is_at_the_head_of_the_first_demonstration(
    render: Callable[[str], Renderer],
) -> None:
    text = modelfile(render(GEMMA), PROMPT, MANIFEST)
    assert "SYSTEM" not in text.replace(".System", "")
    assert 'MESSAGE user """Say "A".\n\nQ: One?"""\nMESSAGE assistant """{{ 1 }}"""' in text
    bare = modelfile(render(GEMMA), PROMPT.model_copy(update={"demos": ()}), MANIFEST)
    assert '{{ "<s><start_of_turn>user\\nSay \\"A\\".\\n\\n" }}' in bare


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        ("{% for m in messages %}{{ loop.index }}{{ m['content'] }}{% endfor %}", PROMPT),
        (SMOLLM2, Prompt(system='"""')),
    ],
)
def test_what_cannot_be_written_is_refused(template: str, prompt: Prompt, render: Callable[[str], Renderer]) -> None:
    with pytest.raises(NesyLoraError, match="--ollama"):
        modelfile(render(template), prompt, MANIFEST)
