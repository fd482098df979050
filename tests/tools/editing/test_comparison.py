"""Proposals compared on the same rows: which one wins, and what is noted of each."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.records.edits import Edit
from agent.records.evaluation import Evaluation, ExampleScore
from agent.records.examples import Candidate, Prompt, Retrieval
from agent.records.rounds import Proposal
from tools.editing.comparison import compare_proposals

ROWS = 20  # half a row's merit is then 0.025, which is 0.075 of content


class Comparison:
    """Prompts whose content on each row is given, the present one first; notes which pairs are scored."""

    def __init__(self, contents: Sequence[Sequence[float]], lengths: Sequence[int] = ()) -> None:
        dots = lengths or [0] * len(contents)
        self.prompts = [Prompt(system=f"{place}{'.' * length}") for place, length in enumerate(dots)]
        self.contents = {prompt.id: row for prompt, row in zip(self.prompts, contents, strict=True)}
        self.asked: list[Candidate] = []
        self.saved: list[Prompt] = []

    def run(self, adapter: str | None = None) -> tuple[int, list[Proposal]]:
        """The winner's place, 0 for the present prompt, and the proposals."""
        present, *edits = self.prompts
        named = [Edit(prompt=edit, note=f"edit {place}") for place, edit in enumerate(edits, 1)]
        winner, proposals = compare_proposals(named, present, adapter, self, self.save)
        return self.prompts.index(winner) if winner else 0, proposals

    def save(self, prompt: Prompt) -> str:
        self.saved.append(prompt)
        return prompt.id

    def __call__(self, candidates: Sequence[Candidate]) -> list[Evaluation]:
        return list(map(self.evaluation, candidates))

    def evaluation(self, candidate: Candidate) -> Evaluation:
        self.asked.append(candidate)
        scores = tuple(
            ExampleScore(example=f"validation:{line}", output="", content=content, style=0)
            for line, content in enumerate(self.contents[candidate.prompt], 1)
        )
        return Evaluation(candidate=candidate, split="validation", scores=scores)


def on_rows(*contents: float) -> list[list[float]]:
    """These contents, each on all rows."""
    return [[content] * ROWS for content in contents]


def test_on_equal_merit_fixed_text_wins_over_retrieved_rows_however_long_it_is() -> None:
    comparison = Comparison(on_rows(0.1, 0.3, 0.3, 0.3), [0, 0, 0, 50])
    retrieving = [
        prompt.model_copy(update={"retrieval": Retrieval(k=k)})
        for prompt, k in zip(comparison.prompts[1:3], (2, 1), strict=True)
    ]
    comparison.prompts[1:3] = retrieving
    comparison.contents |= {prompt.id: [0.3] * ROWS for prompt in retrieving}
    assert comparison.run()[0] == 3
    comparison.contents[comparison.prompts[3].id] = [0.25] * ROWS
    assert comparison.run()[0] == 3, "less by less than half a row"
    comparison.contents[comparison.prompts[3].id] = [0.2] * ROWS
    assert comparison.run()[0] == 2, "of two that retrieve, the one with fewer rows"


@pytest.mark.parametrize(
    ("contents", "lengths", "place"),
    [
        ([0.1, 0.2, 0.3], [1, 1, 50], 2),  # the highest merit wins, however long
        ([0.1, 0.3, 0.3], [1, 50, 20], 2),  # among equals the shortest
        ([0.1, 0.31, 0.3], [1, 50, 20], 1),  # and of near equals the best, where the same number is retrieved
        ([0.3, 0.2, 0.1], [50, 1, 1], 0),  # nothing beats the present prompt
        ([0.3, 0.3, 0.3], [10, 10, 50], 0),  # nor does its equal
        ([0.3, 0.3, 0.1], [50, 10, 1], 1),  # unless that is shorter
        ([0.1], [1], 0),  # there is nothing else
    ],
)
def test_merit_decides_then_length(contents: Sequence[float], lengths: Sequence[int], place: int) -> None:
    assert Comparison(on_rows(*contents), lengths).run()[0] == place


TRIED = st.tuples(st.sampled_from([0.0, 0.02, 0.05, 0.1, 0.2]), st.integers(0, 2), st.integers(0, 5))


@given(st.lists(TRIED, min_size=1, max_size=6))
def test_what_is_taken_is_as_good_as_any_but_for_half_a_row_that_fewer_retrieved_examples_may_cost(
    tried: list[tuple[float, int, int]],
) -> None:
    contents, retrieved, lengths = zip(*tried, strict=True)
    comparison = Comparison(on_rows(*contents), lengths)
    for place, k in enumerate(retrieved):
        if k:
            prompt = comparison.prompts[place].model_copy(update={"retrieval": Retrieval(k=k)})
            comparison.prompts[place] = prompt
            comparison.contents[prompt.id] = [contents[place]] * ROWS
    best, _ = comparison.run()
    assert max(contents) < contents[best] + 0.075, "half a row's merit"
    assert all(retrieved[best] < k for content, k, _ in tried if content > contents[best])
    assert not best or (contents[best], 0) >= (
        contents[0],
        comparison.prompts[best].price > comparison.prompts[0].price,
    )
    near = [place for place, content in enumerate(contents) if contents[0] < content > max(contents) - 0.074]
    assert not near or retrieved[best] == min(retrieved[place] for place in near)


def test_equal_sums_of_other_rows_are_equal() -> None:
    """Merits are means of floats, and 0.3 alone is a little less than 0.1 and 0.2."""
    comparison = Comparison([[0.0, 0.0, 0.0, 0.3], [0.0, 0.0, 0.1, 0.2]], [1, 9])
    first, second = map(comparison.evaluation, (Candidate(prompt=prompt.id) for prompt in comparison.prompts))
    assert first.merit < second.merit
    assert comparison.run()[0] == 0


def test_all_are_tried_on_the_same_rows_with_the_present_adapter() -> None:
    comparison = Comparison([[0.3] * 4] * 3)
    _, proposals = comparison.run(adapter="a1")
    assert comparison.saved == comparison.prompts
    assert comparison.asked == [Candidate(prompt=prompt.id, adapter="a1") for prompt in comparison.prompts]
    assert [(proposal.prompt, proposal.note, proposal.merit, proposal.rows) for proposal in proposals] == [
        (prompt.id, note, pytest.approx(0.1), 4)
        for prompt, note in zip(comparison.prompts, ["the present prompt", "edit 1", "edit 2"], strict=True)
    ]
