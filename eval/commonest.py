"""What one answer to every question would earn: a model must do better than that to have learned anything."""

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from agent.config.scorers import Judge, RewardModel
from agent.reasoning import spoken
from agent.records.base import folded
from agent.records.examples import Example, Split
from agent.records.rounds import ConstantAnswer
from eval.tasks.task import Task

CANDIDATES = 50  # the most frequent train answers
ROWS = 200  # train rows that choose among them


def commonest_answer(task: Task, split: Split) -> ConstantAnswer:
    """The reward of always giving the commonest train answer, in the wanted form. No model is asked.

    The commonest is the one that earns most on the train rows if it is given to all of them: where answers are labels,
    the most frequent label; with numbers or JSON fields, answers that are written differently may still count for one
    another. Of equals, the one that comes more often, then the one that comes first.

    Args:
        split: whose rows it is scored on.

    Returns:
        With the most that one of these answers earns on the split: a model that says the same to all rows may say that
        one. Without a reward where a judge or a reward model scores: asking it would cost what a run costs.
    """
    if _asks(task):
        return ConstantAnswer()
    counts = Counter(folded(row.answer) for row in task.train)
    texts = {folded(row.answer): row.answer for row in reversed(task.train)}
    answers = [task.scorers.show(texts[answer]) for answer, _ in counts.most_common(CANDIDATES)]
    best = max(answers, key=lambda answer: round(_reward(task, answer, task.train[:ROWS]), 9))
    rewards = {answer: _reward(task, answer, task.rows(split)) for answer in answers}
    return ConstantAnswer(answer=spoken(best), reward=rewards[best], most=max(rewards.values()))


def luck(task: Task) -> float:
    """The share of other train rows of which a train answer is right, at most: what a guess may earn.

    Right is full content, whatever the form. The row that the answer comes from is left out, so that answers of which
    no two are alike leave no room for luck. 0 where a judge or a reward model would have to be asked.
    """
    rows = task.train[:ROWS]
    if _asks(task) or len(rows) < 2:
        return 0.0
    counts = Counter(folded(row.answer) for row in rows)
    first = {folded(row.answer): row for row in reversed(rows)}
    return max(_right_elsewhere(task, first[answer], rows) for answer, _ in counts.most_common(CANDIDATES))


def _right_elsewhere(task: Task, given: Example, rows: Sequence[Example]) -> float:
    """The share of these rows but one of which that one's answer is right."""
    answer = task.scorers.show(given.answer)
    scores = task.scorers.score_all([(row, answer) for row in rows if row.name != given.name])
    return fmean(float(score.content == 1) for score in scores)


def _reward(task: Task, answer: str, rows: Sequence[Example]) -> float:
    return fmean(score.reward for score in task.scorers.score_all([(row, answer) for row in rows]))


def _asks(task: Task) -> bool:
    return any(isinstance(scorer, Judge | RewardModel) for scorer in (*task.config.content, *task.config.style))
