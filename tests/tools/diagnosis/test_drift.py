"""General language that is forgotten shows, in nats per token."""

from collections.abc import Callable
from pathlib import Path

from tools.diagnosis.drift import general_loss
from tools.model.backbone import Backbone


def test_the_bare_base_has_not_drifted_and_a_wild_adapter_has(
    backbone: Callable[..., Backbone], random_adapter: Callable[..., Path]
) -> None:
    model = backbone()
    random_adapter(model, "wild")
    before = model.read_tokens
    assert general_loss(model, "wild") > general_loss(model, None) + 0.1
    assert general_loss(model, None) == general_loss(backbone(), None), "and so it stays"
    assert model.read_tokens > before, "it is paid for"


def test_where_the_general_text_does_not_fit_no_drift_is_told(backbone: Callable[..., Backbone]) -> None:
    model = backbone("gpt2")
    model.base.config.max_position_embeddings = 24  # some of the statements fit, others do not
    assert general_loss(model, None) is None
