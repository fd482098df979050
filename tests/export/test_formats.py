"""Bundles of several architectures, with DoRA, quotes and braces in demonstrations, and retrieval, in each format.

Asked is what was written: by transformers and peft, and by llama.cpp where it is installed.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import nesylora
from export.bundle import Wanted, export_run
from export.manifest import read_manifest
from memory.run.folder import RunFolder
from tests.export.conftest import DEMOS, PROMPT
from tests.export.test_bundle import QUESTIONS, answers

ENGINE = Path(__file__).parents[2] / "export" / "engines" / "with_llama_cpp.py"
LLAMA_CPP = find_spec("xllamacpp") is not None
RETRIEVES = {"system": 'Say "it".', "demos": DEMOS, "retrieval": {"k": 2}}


def in_llama_cpp(file: Path, rows: list[list[dict[str, str]]], work: Path) -> list[str]:
    job = {"model": str(file), "rows": rows, "max_new_tokens": 8, "stop": [], "context": 400}
    (work / "asked.json").write_text(json.dumps(job))
    command = [sys.executable, "-I", str(ENGINE), str(work / "asked.json"), str(work / "answered.json")]
    subprocess.run(command, check=True, capture_output=True)
    found: list[str] = json.loads((work / "answered.json").read_text())["answers"]
    return [text.strip() for text in found]


@pytest.mark.parametrize("name", ["llama_tied", "gemma3", "qwen2", "qwen3"])
def test_an_architecture_answers_the_same_in_each_format(
    name: str, trained: Callable[..., RunFolder], saved: Callable[[str], Path], tmp_path: Path
) -> None:
    base = saved(name)
    run = trained({"dora": True}, model=str(base), prompt=PROMPT)
    bundle = export_run(run.path, wanted=Wanted(merged=True, gguf=("f16", "q8_0"), ollama=True))
    assert read_manifest(bundle).refined_template
    ours = nesylora.Adapted(run.path, None, None, None).generate(QUESTIONS)  # type: ignore[arg-type]
    assert answers(bundle, base, QUESTIONS) == ours
    assert answers(bundle, base, QUESTIONS, merged=True) == ours
    merged = AutoModelForCausalLM.from_pretrained(bundle / "merged", dtype="float32").state_dict()
    (tmp_path / "alone").mkdir()  # beside an adapter_config.json, transformers would look for that one's base
    os.link(bundle / "mayors-f16.gguf", tmp_path / "alone" / "f16.gguf")
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "alone", gguf_file="f16.gguf", dtype="float32").state_dict()
    for part, weight in merged.items():
        torch.testing.assert_close(read[part], weight, atol=4e-3, rtol=1e-3, msg=part)
    modelfile = (bundle / "Modelfile").read_text()
    assert 'MESSAGE user """Q: Say "{a}"?\n"""\nMESSAGE assistant """{{ a }} {% b %}\n\\"""' in modelfile
    if LLAMA_CPP:
        asked = [[{"role": "user", "content": question}] for question in QUESTIONS]
        assert in_llama_cpp(bundle / "mayors-f16.gguf", asked, tmp_path) == ours
        assert len(in_llama_cpp(bundle / "mayors-q8_0.gguf", asked, tmp_path)) == len(ours)


@pytest.mark.parametrize("name", ["llama_tied", "qwen3"])
def test_what_retrieves_is_asked_with_whole_messages_in_each_format(
    name: str, trained: Callable[..., RunFolder], saved: Callable[[str], Path], tmp_path: Path
) -> None:
    """The template leaves messages alone that hold the prompt already, quotes and braces too."""
    base = saved(name)
    run = trained({"dora": True}, model=str(base), prompt=RETRIEVES)
    bundle = export_run(run.path, wanted=Wanted(merged=True, gguf=("f16",)))
    loaded = nesylora.load(bundle)
    ours = nesylora.Adapted(run.path, None, None, None).generate(QUESTIONS[:2])  # type: ignore[arg-type]
    whole = [loaded.messages(question) for question in QUESTIONS[:2]]
    assert whole == [nesylora.messages(run.path, question) for question in QUESTIONS[:2]]
    assert all(messages[2]["content"] == DEMOS[0]["answer"] for messages in whole)
    assert answers(bundle, base, whole) == ours
    assert answers(bundle, base, whole, merged=True) == ours
    if LLAMA_CPP:
        assert in_llama_cpp(bundle / "mayors-f16.gguf", whole, tmp_path) == ours
