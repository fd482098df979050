"""A model that is shown retrieved few-shot examples: whoever asks it need not know that a prompt retrieves."""

from collections.abc import Sequence

from agent.protocols import Asked, LanguageModel, Retriever, StopEarly
from agent.records.examples import Example, Prompt
from agent.records.rounds import Spend


class RetrievingLanguageModel(LanguageModel):
    """Looks up what a prompt retrieves, and asks the model behind it.

    Around a `CachedLanguageModel`, so that answers are kept for the few-shot examples that were really shown.

    Args:
        model: what answers; it never sees a prompt that retrieves.
        retriever: looks the few-shot examples up.
    """

    def __init__(self, model: LanguageModel, retriever: Retriever) -> None:
        self._model = model
        self._retriever = retriever

    def generate_each(
        self,
        asked: Sequence[Asked],
        *,
        adapter: str | None,
        max_new_tokens: int,
        stop_early: StopEarly | None = None,
    ) -> Sequence[tuple[Sequence[str | None], Spend]]:
        """As `LanguageModel.generate_each`."""
        resolved = [Asked(*self._retriever.resolved(*each)) for each in asked]
        return self._model.generate_each(
            resolved, adapter=adapter, max_new_tokens=max_new_tokens, stop_early=stop_early
        )

    def nll(
        self,
        prompt: Prompt,
        examples: Sequence[Example],
        completions: Sequence[tuple[str, str]],
        *,
        adapter: str | None,
    ) -> tuple[Sequence[float | None], Spend]:
        """As `LanguageModel.nll`."""
        prompt, examples = self._retriever.resolved(prompt, examples)
        return self._model.nll(prompt, examples, completions, adapter=adapter)
