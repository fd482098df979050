"""What a model's generation_config demands of its answers is measured as `model.generate` would have it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from agent.records.examples import Example, Prompt
from tools.model.backbone import Backbone
from tools.model.generation_config import remark

PROMPT = Prompt(system="Answer the question.")
ROWS = [Example(name=f"v:{n}", question="Who is the mayor " * (n % 4) + f"of river {n}?", answer="") for n in range(6)]
NEW = 10


def answers(backbone: Backbone, adapter: str | None = None) -> list[str | None]:
    return backbone.generate(PROMPT, ROWS, adapter=adapter, max_new_tokens=NEW)[0]


def deployed(backbone: Backbone, adapter: str | None = None) -> list[str]:
    """What `generate` says of each row alone, by the model's own settings, but greedily."""
    return [backbone.render.text_of(line) for line in lines(backbone, adapter)]


def lines(backbone: Backbone, adapter: str | None = None) -> list[list[int]]:
    """The same as ids, without their end tokens."""
    said = []
    for row in ROWS:
        ids = torch.tensor([backbone.render.prompt_ids(PROMPT, row)], device=backbone.device)
        with backbone.using(adapter) as model, torch.no_grad():
            line = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False,
                eos_token_id=backbone.ends, pad_token_id=2,
            )[0, ids.shape[1] :].tolist()  # fmt: skip
        said.append(line[:-1] if line[-1] in backbone.ends else line)
    return said


@pytest.mark.parametrize("name", ["llama", "gemma3", "lfm2"])
@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 1.8},
        {"no_repeat_ngram_size": 1},
        {"encoder_repetition_penalty": 3.0},
        {"encoder_no_repeat_ngram_size": 1},
        {"min_new_tokens": 6},
        {"min_length": 40},
        {"forced_eos_token_id": 7},
        {"exponential_decay_length_penalty": (2, 4.0)},
        {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "min_new_tokens": 3},
    ],
    ids=lambda settings: "+".join(settings),
)
def test_answers_are_those_of_generate_row_by_row(
    name: str, settings: dict[str, Any], backbone: Callable[..., Backbone]
) -> None:
    ours = backbone(name, batch_size=4)
    free = answers(ours)
    if "min" in str(settings):  # let the answers end early where they are free to
        ours.base.generation_config.eos_token_id = [1, *{line[1] for line in lines(ours)}]
        free = answers(ours)
    ours.base.generation_config.update(**settings)
    wanted = deployed(ours)
    assert answers(ours) == wanted
    assert wanted != free, "the setting changes something"


@pytest.mark.parametrize("name", ["llama", "lfm2"])
@pytest.mark.parametrize("kind", ["suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "sequence_bias"])
def test_what_is_forbidden_is_not_said(name: str, kind: str, backbone: Callable[..., Backbone]) -> None:
    ours = backbone(name, batch_size=4)
    free = answers(ours)
    first = sorted({line[0] for line in lines(ours)})
    values = {"bad_words_ids": [[token] for token in first], "sequence_bias": [[[token], -99.0] for token in first]}
    setattr(ours.base.generation_config, kind, values.get(kind, first))
    wanted = deployed(ours)
    assert answers(ours) == wanted != free


@pytest.mark.parametrize("name", ["llama", "lfm2"])
def test_adapters_are_measured_under_the_same_demands(
    name: str, backbone: Callable[..., Backbone], random_adapter: Callable[..., Path]
) -> None:
    ours = backbone(name, batch_size=4)
    random_adapter(ours, "tuned")
    ours.base.generation_config.repetition_penalty = 1.8
    assert answers(ours, "tuned") == deployed(ours, "tuned") != answers(ours)
    assert ours.base.generation_config.repetition_penalty == 1.8, "the model's settings stay"


@pytest.mark.parametrize("name", ["llama", "lfm2"])
def test_greedy_stays_greedy_and_says_so(name: str, backbone: Callable[..., Backbone]) -> None:
    ours = backbone(name)
    assert remark(ours.base) is None
    free = answers(ours)
    ours.base.generation_config.update(do_sample=True, temperature=0.6, top_p=0.9, num_beams=3, stop_strings=["a"])
    assert answers(ours) == free
    assert "do_sample, temperature, top_p, num_beams, stop_strings" in str(remark(ours.base))
