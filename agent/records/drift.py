"""What weights lose on text that has nothing to do with their task."""

from agent.records.base import Record


class GeneralBaseline(Record):
    """The bare base on the probe's texts.

    `answers` are its own to the probe's open questions, "" for none; `losses` the NLL of each text, in nats per token,
    None for one that was not measured. `probe` is the digest of the texts: losses on others do not compare.
    """

    probe: str = ""
    answers: tuple[str, ...]
    losses: tuple[float | None, ...]


class Drift(Record):
    """Loss on the probe's texts less the bare base's, in nats per token: the mean over all texts, and by their kind."""

    mean: float
    kinds: dict[str, float]
