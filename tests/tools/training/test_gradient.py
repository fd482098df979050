"""A step that does not fit into memory: computed in smaller micro-batches, with the same gradient."""

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agent.config.lora import Lora
from agent.errors import NesyLoraError, StepFailed
from agent.records.examples import Example, Prompt
from tests.fixtures.starved import starved_and_fed
from tools.memory_budget import MemoryBudget, free_memory, is_out_of_memory, memory_budget_for
from tools.model.backbone import Backbone
from tools.model.chat_template import TokenRow
from tools.training.gradient import compute_gradient, micro_batches
from tools.training.lora_config import lora_config

ROWS = [TokenRow([*range(10, 40), 50 + number], [60, 61 + number]) for number in range(6)]


class Narrow:
    """Memory that holds micro-batches of so many tokens, or more with their activations recomputed."""

    def __init__(self, model: Any, tokens: int, recomputed: int = 0) -> None:
        self.model, self.tokens, self.recomputed = model, tokens, recomputed
        self.seen: list[int] = []
        model.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, _: object, __: object, kwargs: dict[str, Any]) -> None:
        size = kwargs["input_ids"].numel()
        self.seen.append(size)
        if size > (self.recomputed if self.model.is_gradient_checkpointing else self.tokens):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.fixture
def tuned(backbone: Callable[..., Backbone]) -> Backbone:
    """A model with a LoRA to train."""
    ours = backbone()
    torch.manual_seed(0)
    ours.create("new", lora_config(4, Lora(rank=4)))
    for weight in trained(ours):
        torch.nn.init.normal_(weight, std=0.2)
    ours.base.train()
    return ours


def trained(backbone: Backbone) -> list[torch.nn.Parameter]:
    return [weight for weight in backbone.model.parameters() if weight.requires_grad]


def run(backbone: Backbone, budget: MemoryBudget) -> tuple[float, torch.Tensor]:
    """Loss, and all gradients in one vector."""
    for weight in trained(backbone):
        weight.grad = None
    loss = compute_gradient(backbone, [ROWS[:4], ROWS[4:]], budget)
    return loss, torch.cat([weight.grad.flatten() for weight in trained(backbone) if weight.grad is not None])


def test_a_step_that_does_not_fit_is_halved_until_it_does_with_the_same_result(tuned: Backbone) -> None:
    loss, wanted = run(tuned, MemoryBudget(10_000))
    memory, budget = Narrow(tuned.base, tokens=36), MemoryBudget(10_000)
    halved, found = run(tuned, budget)
    assert halved == pytest.approx(loss, rel=1e-5)
    assert torch.linalg.norm(found - wanted) <= 1e-4 * torch.linalg.norm(wanted)
    assert max(memory.seen) > 36
    assert budget.tokens <= 36 and not budget.checkpointing
    assert tuned.memory_budget is budget
    memory.seen.clear()
    run(tuned, budget)
    assert max(memory.seen) <= 36  # the choice is kept


def test_rows_that_do_not_even_fit_alone_are_recomputed_with_the_same_result(tuned: Backbone) -> None:
    loss, wanted = run(tuned, MemoryBudget(10_000))
    Narrow(tuned.base, tokens=20, recomputed=40)
    budget = MemoryBudget(10_000)
    recomputed, found = run(tuned, budget)
    assert budget.checkpointing
    assert recomputed == pytest.approx(loss, rel=1e-5)
    assert torch.linalg.norm(found - wanted) <= 1e-4 * torch.linalg.norm(wanted)
    assert not tuned.base.is_gradient_checkpointing


def test_a_row_for_which_nothing_helps_fails_the_step_and_says_what_to_lower(tuned: Backbone) -> None:
    Narrow(tuned.base, tokens=20, recomputed=20)
    with pytest.raises(StepFailed, match=r"one training row of 33 tokens; lower lora\.max_tokens"):
        run(tuned, MemoryBudget(10_000))
    assert all(weight.grad is None for weight in trained(tuned))


def test_other_errors_are_not_taken_for_a_lack_of_memory(tuned: Backbone) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    tuned.base.register_forward_pre_hook(broken)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        run(tuned, MemoryBudget(10_000))


def test_an_allocation_that_fails_for_good_is_recognised() -> None:
    with pytest.raises(RuntimeError) as failed:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(failed.value)
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))


STARVED = """
import resource
no_limit = resource.getrlimit(resource.RLIMIT_AS)
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
for limits in ((held + 30_000_000, no_limit[1]), no_limit):
    resource.setrlimit(resource.RLIMIT_AS, limits)
    step()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="address space can be limited, and read, on Linux")
def test_memory_that_really_runs_out_halves_the_micro_batch(tiny_model: Callable[[str], Path]) -> None:
    starved, fed = starved_and_fed(STARVED, tiny_model("llama"), "cpu")
    assert starved[:2] == pytest.approx(fed[:2], rel=1e-4)
    assert starved[2] < 32 * 602 < fed[2]


def test_answers_are_the_same_in_smaller_batches(backbone: Callable[..., Backbone]) -> None:
    examples = [Example(name=f"v:{n}", question=f"Who is mayor {n}?", answer="x") for n in range(6)]
    ours, prompt = backbone(), Prompt(system="Answer.")
    wanted = ours.generate(prompt, examples, adapter=None, max_new_tokens=4)
    memory = Narrow(ours.base, tokens=30)
    assert ours.generate(prompt, examples, adapter=None, max_new_tokens=4) == wanted
    assert max(memory.seen) > 30
    memory.tokens = 3
    with pytest.raises(NesyLoraError, match=r"Lower generation\.max_new_tokens"):
        ours.generate(
            Prompt(system="Another, whose tokens are still to run."), examples, adapter=None, max_new_tokens=4
        )
    with pytest.raises(NesyLoraError, match=r"Lower generation\.max_new_tokens"):
        ours.generate(prompt, examples, adapter=None, max_new_tokens=4)
    memory.tokens = 10_000
    assert ours.generate(prompt, examples, adapter=None, max_new_tokens=4) == wanted  # nothing is left broken


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 30))
def test_micro_batches_keep_the_rows_in_order_and_within_the_budget(lengths: list[int], most: int) -> None:
    class Counting:
        def cost(self, rows: list[TokenRow]) -> int:
            return sum(map(len, rows))

    rows = [TokenRow([1] * length, []) for length in lengths]
    cut = list(micro_batches(Counting(), rows, most))  # type: ignore[arg-type]
    assert [row for some in cut for row in some] == rows
    assert all(len(some) == 1 or sum(map(len, some)) <= most for some in cut)
    assert all(sum(map(len, some)) + len(after[0]) > most for some, after in itertools.pairwise(cut))


def test_the_budget_is_estimated_from_free_memory_and_bounded_by_what_was_learned(
    backbone: Callable[..., Backbone],
) -> None:
    model = backbone().base
    free = memory_budget_for(model, False, None)
    assert 0 < free.tokens < free_memory(model.device)
    assert memory_budget_for(model, True, None).tokens > free.tokens
    assert memory_budget_for(model, False, MemoryBudget(7, checkpointing=True)) == MemoryBudget(7, checkpointing=True)
