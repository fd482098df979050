"""General language that is forgotten shows, in nats per token."""

from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest

from agent.config.lora import Lora
from agent.records.rounds import Spend
from tools.diagnosis.drift import drift, general_baseline, probe
from tools.model.backbone import Backbone
from tools.training.lora_config import lora_config


def test_an_adapter_that_changes_nothing_has_not_drifted_and_a_wild_one_has(
    backbone: Callable[..., Backbone], random_adapter: Callable[..., Path]
) -> None:
    spends: list[Spend] = []
    model = backbone(charge=spends.append)
    baseline = general_baseline(model)
    assert baseline is not None
    assert baseline == general_baseline(backbone())
    model.create("still", lora_config(4, Lora(rank=4)))
    assert drift(model, "still", baseline).mean == pytest.approx(0, abs=1e-5)
    random_adapter(model, "wild")
    spends.clear()
    lost = drift(model, "wild", baseline)
    assert lost.mean > 0.1
    assert sum(spend.read_tokens for spend in spends) > 0, "it is paid for"
    texts = [text.kind for text in probe()]
    assert lost.mean == pytest.approx(fmean(lost.kinds[kind] for kind in texts)), "each text counts the same"


def test_the_base_is_asked_the_open_questions_once(backbone: Callable[..., Backbone]) -> None:
    spends: list[Spend] = []
    model = backbone(charge=spends.append)
    baseline = general_baseline(model)
    opened = [text for text in probe() if not text.answer]
    assert baseline is not None and len(baseline.answers) == len(opened)
    assert any(baseline.answers) and len(baseline.losses) == len(probe())
    assert sum(spend.generated_tokens for spend in spends) > 0


def test_where_the_general_text_does_not_fit_no_drift_is_reported(backbone: Callable[..., Backbone]) -> None:
    model = backbone("gpt2")
    model.base.config.max_position_embeddings = 64  # some of the texts fit, others do not
    assert general_baseline(model) is None
