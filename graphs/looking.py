"""What may be looked at in a round without changing anything: by the LLM planner, an agent's tools, and the chat."""

import time
from collections.abc import Sequence

from agent.errors import BadInput, StepFailed
from agent.records.evaluation import ExampleScore
from agent.records.events import InquiryMade
from agent.records.examples import Candidate, Example
from agent.records.looks import (
    ClassifyFailures,
    Compare,
    Evaluate,
    FailingRow,
    FailuresClassified,
    Finding,
    FoundPrompt,
    Inquiry,
    Look,
    PairsCompared,
    PromptsFound,
    PromptTried,
    RowsScored,
    SearchPrompts,
    TryPrompt,
)
from graphs.rows.draws import learned_rows
from graphs.services.run import RunServices
from graphs.state import State

MOST_FAILURES = 6  # failing train rows that a look shows


class Looking:
    """Satisfies `agent.protocols.Investigation` for the round that a state is in.

    Args:
        state: with the best pair and its diagnosis, as the node `observe` leaves it.
    """

    def __init__(self, state: State, services: RunServices) -> None:
        self._state = state
        self._services = services

    def note(self, inquiry: Inquiry) -> None:
        self._services.emit(InquiryMade(number=self._state["number"] + 1, inquiry=inquiry))

    def look(self, look: Look) -> Finding:
        """What is found; see `Investigation.look`.

        Raises:
            StepFailed: the run's minutes are used up.
            BadInput: it cannot be done.
            LlmUnavailable: a judge scores these rows, and does not answer.
        """
        deadline = self._services.meter.deadline
        if deadline is not None and time.monotonic() >= deadline:
            raise StepFailed("the run's minutes are used up")
        match look:
            case Evaluate():
                return self._evaluate(look)
            case ClassifyFailures():
                return self._classify_failures()
            case SearchPrompts():
                return self._search_prompts(look)
            case TryPrompt():
                return try_prompt(look, self._state["best"], self._services)
            case Compare(first=first, second=second):
                return self._compare(first, second)

    def _evaluate(self, look: Evaluate) -> RowsScored:
        services, best = self._services, self._state["best"]
        if look.split == "validation":
            evaluation = services.evaluate(best, "validation")
        else:
            size = min(look.rows, len(services.spec.train))
            evaluation = services.evaluate(best, "train", learned_rows(self._state, services, size))
        scores = evaluation.scores
        content = [score for score in scores if score.content < 1]
        style = [score for score in scores if score.style < 1]
        both = sum(score.style < 1 for score in content)
        return RowsScored(
            split=look.split,
            rows=len(scores),
            reward=evaluation.reward,
            content=evaluation.content,
            style=evaluation.style,
            failing=sum(score.reward < 1 for score in scores),
            lacking_content=len(content) - both,
            lacking_style=len(style) - both,
            lacking_both=both,
            too_long=evaluation.too_long,
            failures=tuple(failing_rows(scores, services)[:MOST_FAILURES]) if look.split == "train" else (),
        )

    def _classify_failures(self) -> FailuresClassified:
        """As the node `observe` has classified them in this round."""
        diagnosis = self._state["diagnosis"]
        return FailuresClassified(
            failing=diagnosis.failing,
            total=diagnosis.total,
            probed=len(diagnosis.examples),
            content=diagnosis.expected("content"),
            style=diagnosis.expected("style"),
            both=diagnosis.expected("both"),
            confidence=diagnosis.confidence,
            prompt_gap=diagnosis.prompt_gap,
            weight_gap=diagnosis.weight_gap,
            by=diagnosis.by,
        )

    def _search_prompts(self, look: SearchPrompts) -> PromptsFound:
        memory = self._services.memory
        found = [
            FoundPrompt(
                prompt=recalled.entry.prompt, run=recalled.entry.run, task=recalled.entry.task,
                similarity=recalled.similarity, reward=recalled.entry.reward, gain=recalled.entry.gain,
            )
            for recalled in memory.recall(look.about, look.limit)
        ]  # fmt: skip
        return PromptsFound(asked=memory.asked, prompts=tuple(found))

    def _compare(self, first: int, second: int) -> PairsCompared:
        from eval.stats import sign_flip

        pairs = [pair_after(number, self._services) for number in (first, second)]
        before, after = (self._services.evaluate(pair, "validation") for pair in pairs)
        differences = [new.reward - old.reward for old, new in zip(before.scores, after.scores, strict=True)]
        return PairsCompared(
            first=first,
            second=second,
            rows=len(differences),
            first_reward=before.reward,
            second_reward=after.reward,
            better=sum(difference > 0 for difference in differences),
            worse=sum(difference < 0 for difference in differences),
            p_value=sign_flip(differences),
            same=pairs[0] == pairs[1],
        )


def failing_rows(scores: Sequence[ExampleScore], services: RunServices) -> list[FailingRow]:
    """The train rows among these scores that fall short, in order, with what is wrong with each."""
    return [
        FailingRow(
            question=services.examples[score.example].question,
            output=score.output,
            faults=(*(("The content is wrong.",) if score.content < 1 else ()), *score.faults),
            row=score.example,
            wanted=services.examples[score.example].answer if score.content < 1 else "",
        )
        for score in scores
        if score.reward < 1
    ]


def try_prompt(look: TryPrompt, best: Candidate, services: RunServices) -> PromptTried:
    """What a pair, and others beside it, answer to a question of the user's, or an agent's, own.

    Raises:
        BadInput: there was no such round; the model's window has no room for the question.
    """
    others = [_pair_tried(number, services) for number in look.beside]
    known = {pair: _answer(look.question, pair, services) for pair in dict.fromkeys((best, *others))}
    return PromptTried(question=look.question, answer=known[best], beside=tuple(known[pair] for pair in others))


def _pair_tried(number: int, services: RunServices) -> Candidate:
    first = services.folder.baseline()
    return first.seed if first and number == 0 else pair_after(number, services)


def _answer(question: str, pair: Candidate, services: RunServices) -> str:
    example = Example(name="chat:1", question=question, answer="")
    tokens, prompt = services.spec.config.generation.max_new_tokens, services.folder.prompt(pair.prompt)
    [answer], _ = services.model.generate(prompt, [example], adapter=pair.adapter, max_new_tokens=tokens)
    if answer is None:
        raise BadInput(f"The model's window has no room for this question and generation.max_new_tokens: {tokens}.")
    return answer


def pair_after(number: int, services: RunServices) -> Candidate:
    """The pair that stood after a round; 0: the baseline's. Raises BadInput: there was no such round."""
    baseline, rounds = services.folder.baseline(), services.folder.rounds()
    if baseline is None or number > len(rounds):
        raise BadInput(f"There is no round {number}: there have been {len(rounds)}, and 0 is the baseline.")
    return rounds[number - 1].best if number else baseline.best
