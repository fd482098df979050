"""Hard train questions in other words: which rewrites help the model to the right answer (paper, data remaking)."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean

from agent.reasoning import spoken
from agent.records.base import folded
from agent.records.edits import Rewrite
from agent.records.evaluation import ExampleScore
from agent.records.examples import Example
from agent.records.rounds import Remaking
from memory.remake import source_of

Hard = tuple[Example, ExampleScore]


def try_rewrites(
    hard: Sequence[Hard],
    recalled: Sequence[Rewrite],
    ask: Callable[[Sequence[Hard]], Mapping[str, str]],
    answer: Callable[[Sequence[Example]], Sequence[str]],
    score: Callable[[Sequence[tuple[Example, str]]], Sequence[ExampleScore]],
    *,
    prompt: str,
    taken: Iterable[str] = (),
) -> tuple[list[Rewrite], Remaking]:
    """The rewrites under which the model's answer earns full reward, and what all of them changed.

    A rewrite is not tried where it is empty, gives the answer away, or repeats (case and white space aside) a hard
    question, a taken one or another rewrite.

    Args:
        hard: train examples, and the scores of the model's answers to them as given.
        recalled: known rewrites, at most one to a source. They are measured like new ones.
        ask: rewritten questions by example name, of those examples that nothing is recalled for.
        answer: the model's answers, in order, under the prompt with the id `prompt`.
        score: of answers to the examples *as given*: other words may not change what is right.
        taken: questions that must not be repeated: those of other rows, of held-out ones above all.
    """
    known = {rewrite.source: rewrite.question for rewrite in recalled}
    found = {example.name: known[source] for example, _ in hard if (source := source_of(example)) in known}
    missing = [pair for pair in hard if pair[0].name not in found]
    asked = ask(missing) if missing else {}
    usable = _usable([example for example, _ in hard], {**asked, **found}, taken)
    tried = [pair for pair in hard if pair[0].name in usable]
    rewritten = [example.model_copy(update={"question": usable[example.name]}) for example, _ in tried]
    outputs = answer(rewritten) if tried else []
    after = score([(example, output) for (example, _), output in zip(tried, outputs, strict=True)]) if tried else []
    passed = [(example, scored.output) for (example, _), scored in zip(tried, after, strict=True) if scored.reward == 1]
    kept = [
        Rewrite(source=source_of(example), question=usable[example.name], answer=spoken(output), prompt=prompt)
        for example, output in passed
    ]
    return kept, Remaking(
        asked=len(hard),
        tried=len(tried),
        kept=len(kept),
        recalled=sum(example.name in found for example, _ in passed),
        before=_mean([before for _, before in tried]),
        after=_mean(after),
    )


def _usable(hard: Sequence[Example], rewritten: Mapping[str, str], taken: Iterable[str]) -> dict[str, str]:
    """The rewritten questions, by example name, that may be tried."""
    seen = {folded(question) for question in (*taken, *(example.question for example in hard))} | {""}
    usable = {}
    for example in hard:
        question = rewritten.get(example.name, "").strip()
        if folded(question) not in seen and not _gives_away(question, example):
            seen.add(folded(question))
            usable[example.name] = question
    return usable


def _gives_away(question: str, example: Example) -> bool:
    """Whether it says the answer's last line, where worked answers have their result, and the example does not."""
    result = example.answer.strip().rpartition("\n")[2].lstrip("# ")
    return _says(question, result) and not _says(example.question, result)


def _says(text: str, phrase: str) -> bool:
    """Whether the text has the phrase as whole words."""
    return re.search(rf"(?<!\w){re.escape(folded(phrase))}(?!\w)", folded(text)) is not None


def _mean(scores: Sequence[ExampleScore]) -> float:
    return fmean(score.reward for score in scores) if scores else 0.0
