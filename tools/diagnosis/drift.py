"""How far weights drift from general language: an adapter that gains by forgetting should be noticed.

The probe stands in general.jsonl beside this file: short texts of ten kinds, written for NeSyLoRA and free for every
use (CC0), and four open questions, which the bare base answers itself. Nothing is ever trained on them.
"""

import json
from collections.abc import Sequence
from importlib.resources import files
from statistics import fmean

from agent.protocols import LanguageModel
from agent.records.base import Record, digest
from agent.records.drift import Drift, GeneralBaseline
from agent.records.examples import Example, Prompt

ANSWER_TOKENS = 32  # most of an own answer


class Text(Record):
    """A text of the probe; the bare base answers a question that has no answer."""

    kind: str
    question: str
    answer: str = ""


def probe() -> list[Text]:
    """The texts, in the file's order."""
    lines = files("tools.diagnosis").joinpath("general.jsonl").read_text(encoding="utf-8").splitlines()
    return [Text(**json.loads(line)) for line in lines]


def probe_digest() -> str:
    """Changes with any of the texts."""
    return digest([text.model_dump() for text in probe()])


def general_baseline(model: LanguageModel) -> GeneralBaseline | None:
    """The bare base's answers to the open questions, and its loss on every text.

    None where a written text does not fit into the model's window: the mean of a part would not compare.
    """
    texts = probe()
    opened = [_example(text) for text in texts if not text.answer]
    answers, _ = model.generate(Prompt(), opened, adapter=None, max_new_tokens=ANSWER_TOKENS)
    baseline = GeneralBaseline(probe=probe_digest(), answers=tuple(answer or "" for answer in answers), losses=())
    losses = _losses(model, None, texts, baseline)
    if any(loss is None and text.answer for loss, text in zip(losses, texts, strict=True)):
        return None
    return baseline.model_copy(update={"losses": tuple(losses)})


def drift(model: LanguageModel, adapter: str, baseline: GeneralBaseline) -> Drift:
    """What the adapter has lost against the bare base. Each text counts the same, whatever its length."""
    texts = probe()
    by_kind: dict[str, list[float]] = {}
    for text, now, before in zip(texts, _losses(model, adapter, texts, baseline), baseline.losses, strict=True):
        if now is not None and before is not None:
            by_kind.setdefault(text.kind, []).append(now - before)
    return Drift(
        mean=fmean(lost for kind in by_kind.values() for lost in kind),
        kinds={kind: fmean(lost) for kind, lost in by_kind.items()},
    )


def _losses(
    model: LanguageModel, adapter: str | None, texts: Sequence[Text], baseline: GeneralBaseline
) -> list[float | None]:
    own = iter(baseline.answers)
    answers = [text.answer or next(own) for text in texts]
    losses, _ = model.nll(
        Prompt(), [_example(text) for text in texts], [("", answer) for answer in answers], adapter=adapter
    )
    return list(losses)


def _example(text: Text) -> Example:
    return Example(name="general", question=text.question, answer=text.answer)
