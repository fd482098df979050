"""How far weights drift from general language: an adapter that gains by forgetting should be noticed."""

from agent.protocols import LanguageModel
from agent.records.examples import Example, Prompt

# General questions and answers in chat form, written for this purpose; no task has them.
GENERAL = (
    ("What happens to water when it gets very cold?", "When water gets very cold, it freezes and turns into ice."),
    ("Why do people carry umbrellas?", "People carry umbrellas to keep dry when it rains."),
    ("Tell me something about bees.", "Bees fly from flower to flower, collect nectar and make honey from it."),
    ("How does one make tea?", "Boil some water, pour it over the leaves, and let it stand for a few minutes."),
    ("What is a library?", "A library is a place where books are kept and where people can read or borrow them."),
    ("Why do we have day and night?", "The Earth turns around itself, so that each side faces the Sun in turn."),
    ("Write a sentence about a dog.", "The old dog slept in front of the fire and dreamed of running in the fields."),
    ("What should I do when I am tired?", "Go to bed early, sleep well, and take a break from your work."),
)


def general_loss(model: LanguageModel, adapter: str | None) -> float | None:
    """Mean NLL of the general answers under an adapter, in nats per token; each answer counts the same.

    None unless all could be measured: the mean of a part would not compare.
    """
    rows = [
        Example(name=f"train:{n}", question=question, answer=answer) for n, (question, answer) in enumerate(GENERAL, 1)
    ]
    losses, _ = model.nll(Prompt(), rows, [("", row.answer) for row in rows], adapter=adapter)
    measured = [loss for loss in losses if loss is not None]
    return sum(measured) / len(measured) if len(measured) == len(rows) else None
