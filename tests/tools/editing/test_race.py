"""The race of proposals over the minibatch: who wins, who is dropped, and what it saves."""

from collections.abc import Sequence
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.protocols import Bound
from agent.records.edits import Edit
from agent.records.evaluation import Evaluation, ExampleScore
from agent.records.examples import Candidate, Prompt
from agent.records.rounds import Proposal
from eval.stats import cannot_catch_up, loses
from tools.editing.rule_editor import choose, rungs

BEYOND_CHANCE = partial(loses, alpha=0.1)


def never(differences: Sequence[float], left: int) -> bool:
    """The bound by which nobody is dropped."""
    return False


class Race:
    """Prompts whose content on each row is given, the present one first; notes which rows are asked for."""

    def __init__(self, contents: Sequence[Sequence[float]], lengths: Sequence[int] = ()) -> None:
        dots = lengths or [0] * len(contents)
        self.prompts = [Prompt(system=f"{place}{'.' * length}") for place, length in enumerate(dots)]
        self.contents = {prompt.id: row for prompt, row in zip(self.prompts, contents, strict=True)}
        self.asked: list[tuple[Candidate, int]] = []
        self.saved: list[Prompt] = []

    def run(self, parts: Sequence[int], bound: Bound = never, adapter: str | None = None) -> tuple[int, list[Proposal]]:
        """The winner's place, 0 for the present prompt, and the proposals."""
        present, *edits = self.prompts
        named = [Edit(prompt=edit, note=f"edit {place}") for place, edit in enumerate(edits, 1)]
        winner, proposals = choose(named, present, adapter, self, self.save, parts, bound)
        return self.prompts.index(winner) if winner else 0, proposals

    def save(self, prompt: Prompt) -> str:
        self.saved.append(prompt)
        return prompt.id

    def __call__(self, candidate: Candidate, rows: int) -> Evaluation:
        self.asked.append((candidate, rows))
        scores = tuple(
            ExampleScore(example=f"validation:{line}", output="", content=content, style=0)
            for line, content in enumerate(self.contents[candidate.prompt][:rows], 1)
        )
        return Evaluation(candidate=candidate, split="validation", scores=scores)


# --- who wins ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("contents", "lengths", "place"),
    [
        ([0.1, 0.2, 0.3], [1, 1, 50], 2),  # the highest merit wins, however long
        ([0.1, 0.3, 0.3], [1, 50, 20], 2),  # among equals the shortest
        ([0.3, 0.2, 0.1], [50, 1, 1], 0),  # nothing beats the present prompt
        ([0.3, 0.3, 0.3], [10, 10, 50], 0),  # nor does its equal
        ([0.3, 0.3, 0.1], [50, 10, 1], 1),  # unless that is shorter
        ([0.1], [1], 0),  # there is nothing else
    ],
)
def test_merit_decides_then_length(contents: Sequence[float], lengths: Sequence[int], place: int) -> None:
    assert Race([[content] for content in contents], lengths).run([1])[0] == place


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.2]), st.integers(0, 5)), min_size=1, max_size=6))
def test_nothing_that_was_tried_is_better_than_the_winner(tried: list[tuple[float, int]]) -> None:
    contents, lengths = zip(*tried, strict=True)
    best, _ = Race([[content] for content in contents], lengths).run([1])
    assert all((content, -length) <= (contents[best], -lengths[best]) for content, length in tried)


def test_all_are_tried_on_the_same_rows_with_the_present_adapter() -> None:
    race = Race([[0.3] * 6] * 3)
    _, proposals = race.run([4], adapter="a1")
    assert race.saved == race.prompts
    assert race.asked == [(Candidate(prompt=prompt.id, adapter="a1"), 4) for prompt in race.prompts]
    assert [(one.prompt, one.note, one.merit, one.rows) for one in proposals] == [
        (prompt.id, note, pytest.approx(0.1), 4)
        for prompt, note in zip(race.prompts, ["the present prompt", "edit 1", "edit 2"], strict=True)
    ]


# --- who is dropped ------------------------------------------------------------------------------


@given(
    st.integers(1, 8).flatmap(
        lambda count: st.lists(
            st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=count, max_size=count), min_size=1, max_size=6
        )
    ),
    st.data(),
)
def test_the_certain_bound_never_changes_the_winner(contents: list[list[float]], data: st.DataObject) -> None:
    rows = len(contents[0])
    lengths = data.draw(st.lists(st.integers(0, 2), min_size=len(contents), max_size=len(contents)))
    parts = sorted(data.draw(st.sets(st.integers(1, rows))) | {rows})
    whole, proposals = Race(contents, lengths).run([rows])
    place, raced = Race(contents, lengths).run(parts, cannot_catch_up)
    assert place == whole
    assert raced[place] == proposals[place]


ALL, NONE, HALF = [1.0] * 12, [0.0] * 12, [1.0, 0.0] * 6


def test_who_cannot_catch_up_is_dropped() -> None:
    """Merit is a third of content here, so that 12 rows lost are 4 points: too many for 3 rows to win back."""
    _, proposals = Race([NONE + ALL, ALL + ALL, NONE + ALL]).run([12, 21, 24], cannot_catch_up)
    assert [one.rows for one in proposals] == [24, 24, 21]


def test_who_loses_beyond_chance_is_dropped_and_its_rows_are_not_asked_for() -> None:
    race = Race([NONE, ALL, NONE, HALF])
    place, proposals = race.run([4, 8, 12], BEYOND_CHANCE)
    assert place == 1
    assert [one.rows for one in proposals] == [12, 12, 4, 8]
    assert [one.merit for one in proposals] == pytest.approx([0, 1 / 3, 0, 1 / 6])
    dropped = Candidate(prompt=race.prompts[2].id)
    assert [rows for candidate, rows in race.asked if candidate == dropped] == [4]


def test_ties_and_noise_drop_nobody() -> None:
    close = [1.0, 0.0, 1.0, 1.0] * 3
    for contents in ([NONE] * 5, [ALL] * 5, [NONE, close, close[::-1], close]):
        assert {one.rows for one in Race(contents).run([4, 8, 12], BEYOND_CHANCE)[1][1:]} == {12}


def test_the_upper_half_and_the_present_prompt_race_to_the_end_whatever_the_bound_says() -> None:
    _, proposals = Race([NONE, ALL, HALF, NONE, NONE]).run([4, 12], lambda differences, left: True)
    assert [one.rows for one in proposals] == [12, 12, 12, 4, 4]


# --- the parts of a race --------------------------------------------------------------------------


def test_parts_double_from_one_batch_to_the_whole() -> None:
    assert rungs(12, 4) == [4, 8, 12]
    assert rungs(64, 8) == [8, 16, 32, 64]
    assert rungs(12, 32) == [12]  # one batch holds them all: nothing could be saved


@given(st.integers(1, 500), st.integers(1, 64))
def test_parts_take_no_more_batches_than_the_whole_at_once(minibatch: int, batch: int) -> None:
    parts = rungs(minibatch, batch)
    new = [rows - before for before, rows in zip([0, *parts], parts, strict=False)]
    assert parts[-1] == minibatch and min(new) > 0
    assert sum(-(-rows // batch) for rows in new) == -(-minibatch // batch)
