"""General language that is forgotten shows, in nats per token."""

from collections.abc import Callable
from pathlib import Path

from agent.records.rounds import Spend
from tools.diagnosis.drift import general_loss
from tools.model.backbone import Backbone


def test_the_bare_base_has_not_drifted_and_a_wild_adapter_has(
    backbone: Callable[..., Backbone], random_adapter: Callable[..., Path]
) -> None:
    spends: list[Spend] = []
    model = backbone(charge=spends.append)
    random_adapter(model, "wild")
    assert general_loss(model, "wild") > general_loss(model, None) + 0.1
    assert general_loss(model, None) == general_loss(backbone(), None), "and so it stays"
    assert all(spend.read_tokens > 0 for spend in spends) and len(spends) == 3, "it is paid for"


def test_where_the_general_text_does_not_fit_no_drift_is_told(backbone: Callable[..., Backbone]) -> None:
    model = backbone("gpt2")
    model.base.config.max_position_embeddings = 24  # some of the statements fit, others do not
    assert general_loss(model, None) is None
