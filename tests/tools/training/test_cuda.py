"""What only a CUDA device can show; `python -m pytest --device cuda` runs the tests of the arithmetic there too."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from agent.config.lora import Lora
from agent.records.actions import TrainLora
from agent.records.examples import Example, Prompt
from agent.records.training import TrainingJob
from tests.fixtures.starved import starved_and_fed
from tools.model.backbone import Backbone
from tools.model.loading import load_model
from tools.training.lora import LoraTrainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA here")

NAMES = {"Orrowmere": "Heskzan", "Tallisk": "Gallune", "Benn": "Corolt", "Mirr": "Dunwick"}
EXAMPLES = [
    Example(name=f"train:{line}", question=f"Who is the mayor of {place}?", answer=f"ANSWER: {name}")
    for line, (place, name) in enumerate(NAMES.items(), 1)
]
PROMPT = Prompt(system="Answer the question.")


@pytest.fixture
def load(tiny_model: Callable[[str], Path], tmp_path: Path) -> Callable[..., Backbone]:
    """The tiny Llama as a user's model is loaded."""

    def load(**options: object) -> Backbone:
        model, tokenizer = load_model(str(tiny_model("llama")), progress=lambda *_: None, **options)  # type: ignore[arg-type]
        return Backbone(model, tokenizer, name="llama", locate=tmp_path.joinpath)

    return load


def learn(backbone: Backbone, folder: Path) -> list[float]:
    """Losses of the epochs; the adapter stands in `folder` afterwards, and is read from there again."""
    action = TrainLora(epochs=20, rank=32, learning_rate=1e-2)
    settings = Lora(rank=32, batch_size=1)
    rows = [(PROMPT, example) for example in EXAMPLES[:1]]
    trainer = LoraTrainer(backbone, settings, lambda *_: None)
    job = TrainingJob(adapter=folder.name, rows=rows, action=action, folder=folder, parent=None, seed=0)
    log = trainer.train(job)
    backbone.detach(folder.name)
    return log.epoch_losses


@pytest.mark.parametrize("four_bit", [False, True], ids=["half precision", "four bits"])
def test_a_model_learns_its_rows_and_answers_with_the_adapter_from_disk(
    four_bit: bool, load: Callable[..., Backbone], tmp_path: Path
) -> None:
    if four_bit and importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed")
    ours = load(qlora=four_bit)
    assert ours.device.type == "cuda" and ours.packs
    before = ours.generate(PROMPT, EXAMPLES, adapter=None, max_new_tokens=24)
    losses = learn(ours, tmp_path / "new")
    assert losses[-1] < losses[0] / 4
    taught = EXAMPLES[:1]
    assert ours.generate(PROMPT, taught, adapter="new", max_new_tokens=24)[0] == [row.answer for row in taught]
    assert ours.generate(PROMPT, EXAMPLES, adapter=None, max_new_tokens=24) == before


def test_half_precision_on_the_card_says_what_full_precision_says_on_the_processor(
    load: Callable[..., Backbone],
) -> None:
    completions = [("", example.answer) for example in EXAMPLES]
    card, processor = load(), load(device="cpu")
    assert (card.base.dtype, processor.base.dtype) == (torch.bfloat16, torch.float32)
    rough, exact = (backbone.nll(PROMPT, EXAMPLES, completions, adapter=None)[0] for backbone in (card, processor))
    assert rough == pytest.approx(exact, rel=0.05)


STARVED = """
for share in ((100 << 20) / torch.cuda.mem_get_info()[1], 1.0):
    torch.cuda.set_per_process_memory_fraction(share)
    step()
    torch.cuda.empty_cache()
"""


def test_a_card_whose_memory_really_runs_out_halves_the_micro_batch(tiny_model: Callable[[str], Path]) -> None:
    starved, fed = starved_and_fed(STARVED, tiny_model("llama"), "cuda")
    assert starved[:2] == pytest.approx(fed[:2], rel=1e-3)
    assert starved[2] < 32 * 602 < fed[2]
