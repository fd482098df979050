"""Every face says in the same words where a run stands."""

from pathlib import Path

from agent.records.limits import Limits
from agent.records.rounds import Spend
from graphs.control.steering import RunStatus, Step
from tests.fixtures.story import make_run
from ui.control.states import in_words
from ui.mcp import views
from ui.page.run.overview import live_panel
from ui.talk import answers
from ui.terminal.chat import status_line

HERE = "valley-1: reward 0.00 → 0.50 (target 0.90); 1 round of 6 done; working"
STEP = Step(what="training LoRA", done=3, total=40, note="loss 2.1", seconds_left=20)
NOW = RunStatus(
    run="valley-1", folder="f", condition="working", limits=Limits(rounds=6, target=0.9), seed_reward=0.0, reward=0.5,
    rounds=1, spend=Spend(seconds=75), step=STEP,
)  # fmt: skip


def test_all_faces_say_the_same(tmp_path: Path) -> None:
    story = make_run(tmp_path, rounds=1, finished=False)
    talk = " ".join(said.text for said in answers.status(NOW))
    mcp = views.in_words(views.view(story, NOW, 0))
    for text in (talk, in_words(NOW), mcp):
        assert HERE in text and "training LoRA 3/40, loss 2.1, about 20 s left" in text
    later = NOW.model_copy(update={"pausing": True})
    for text in (" ".join(said.text for said in answers.status(later)), in_words(later)):
        assert "it pauses after this step" in text
    assert status_line(NOW, "").endswith("training LoRA 3/40, loss 2.1, about 20 s left")
    panel = live_panel(story, NOW)
    assert ">working</span>" in panel and "<span>loss 2.1</span><span>about 20 s left</span>" in panel
