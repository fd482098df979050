"""Who scores what no rule can, built from the settings of a scorer."""

from collections.abc import Callable

from agent.protocols import Chat, Progress, Rater
from agent.scoring import Judge, Rated


def make_rater(settings: Rated, chat: Callable[[], Chat], device: str, progress: Progress) -> Rater:
    """A judge on the LLM that `chat` gives, or a reward model on `device` (auto: the best there is).

    Raises:
        LlmUnavailable: there is no LLM to be had.
    """
    if isinstance(settings, Judge):
        from eval.judge import LlmJudge

        return LlmJudge(settings, chat(), progress)
    from eval.reward_model import RewardModelRater
    from tools.loading import pick_device

    return RewardModelRater(settings, pick_device() if device == "auto" else device, progress)
