"""Who scores what no rule can, built from the settings of a scorer."""

from collections.abc import Callable

from agent.config.scorers import Judge, Rated
from agent.protocols import Chat, Progress, Rater


def make_rater(settings: Rated, chat: Callable[[], Chat], device: str, progress: Progress) -> Rater:
    """A judge on the LLM that `chat` gives, or a reward model on `device` (auto: the best there is).

    Raises:
        LlmUnavailable: there is no LLM to be had.
    """
    if isinstance(settings, Judge):
        from eval.scorers.judge import LlmJudge

        return LlmJudge(settings, chat(), progress)
    from eval.scorers.reward_model import RewardModelRater
    from tools.model.loading import pick_device

    return RewardModelRater(settings, pick_device(device), progress)
