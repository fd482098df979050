"""How faces say why it was decided so: every look and every finding has its words."""

import pytest

from agent.records.actions import Alternative, Decision, EditPrompt, Objection, Standing, Stop, TrainLora
from agent.records.examples import Prompt
from agent.records.looks import (
    ClassifyFailures,
    Compare,
    Evaluate,
    FailuresClassified,
    Finding,
    FoundPrompt,
    Inquiry,
    Look,
    PairsCompared,
    PromptsFound,
    PromptTried,
    SearchPrompts,
    TryPrompt,
)
from agent.records.rounds import Proposal
from ui.decision_wording import alternative, doubts, inquiry, reason, refusal

PROMPT = FoundPrompt(prompt=Prompt(), run="towns-1", task="towns", similarity=0.8, reward=0.9, gain=0.25)
CLASSIFIED = FailuresClassified(
    failing=8, total=10, probed=6, content=0.3, style=0.2, both=0.3, confidence=None, prompt_gap=None,
    weight_gap=None, by="rewards",
)  # fmt: skip
COMPARED = PairsCompared(
    first=0, second=2, rows=4, first_reward=0.25, second_reward=0.5, better=2, worse=1, p_value=0.25
)


@pytest.mark.parametrize(
    ("look", "finding", "words"),
    [
        (
            ClassifyFailures(), CLASSIFIED,
            "classify failures: 8 of 10 rows fail; of all rows 30% lack content alone, 20% style alone, 30% both; "
            "sorted by the two rewards alone",
        ),
        (
            SearchPrompts(about="mayors"), PromptsFound(asked=True, prompts=(PROMPT,)),
            "search prompts about “mayors”: towns-1 (reward 0.90)",
        ),
        (SearchPrompts(), PromptsFound(asked=True), "search prompts: none"),
        (SearchPrompts(), PromptsFound(asked=False), "search prompts: the memory is kept out of this run"),
        (
            TryPrompt(question="Who?"), PromptTried(question="Who?", answer="Nobody."),
            "try the prompt on “Who?”: “Nobody.”",
        ),
        (
            Compare(first=0, second=2), COMPARED,
            "compare the pairs after rounds 0 and 2: reward 0.25 and 0.50; 2 of 4 rows better, 1 worse, p 0.25",
        ),
        (
            Compare(first=0, second=1),
            COMPARED.model_copy(update={"second": 1, "better": 0, "worse": 0, "p_value": 1.0, "same": True}),
            "compare the pairs after rounds 0 and 1: the same pair stood after both: reward 0.25",
        ),
    ],
)  # fmt: skip
def test_every_look_and_finding_has_its_words(look: Look, finding: Finding, words: str) -> None:
    assert inquiry(Inquiry(look=look, finding=finding)) == words


def test_a_look_that_found_nothing_says_why() -> None:
    assert inquiry(Inquiry(look=Evaluate(split="validation"), fault="no time")) == (
        "evaluate on validation rows: nothing, no time"
    )


def test_the_alternative_reads_as_its_action_and_reason_whichever_version_wrote_it() -> None:
    shown = Alternative(action=TrainLora(rank=8), reason="Content is lacking.")
    now = Decision(move=EditPrompt(), reason="", alternative=shown)
    before = Decision(move=EditPrompt(), reason="", rules_would=f"{shown.action}: {shown.reason}")
    assert (
        alternative(now)
        == alternative(before)
        == ("train_lora on original rows, 3 epochs at rate 0.001, rank 8: Content is lacking.")
    )
    assert alternative(Decision(move=EditPrompt(), reason="")) == ""


def test_why_the_planner_was_not_used_stands_with_the_reason() -> None:
    assert reason(Decision(move=EditPrompt(), reason="Words.")) == "Words."
    stood_in = Decision(move=EditPrompt(), reason="Words.", planner_fault="it is down")
    assert reason(stood_in) == "Words. (The planner was not used: it is down)"


def test_a_refusal_is_shown_with_its_cause_whichever_version_wrote_it() -> None:
    assert refusal(Proposal(prompt="0", note="leaky", refused="it gives a row away")) == "leaky; it gives a row away"
    assert refusal(Proposal(prompt="0", note="refused: leaky; why")) == "refused: leaky; why"


def test_doubts_about_a_plan_and_its_planner_are_said_with_their_numbers() -> None:
    stop = Objection(planned=Stop(), reason="hopeless", gain=0.0, rules_gain=0.47)
    own = Standing(llm="mind-1", trust=0.24, rounds=1, gained=0.0, promised=0.4, cost=3000, promised_cost=5000)
    again = Decision(move=EditPrompt(), reason="r", by="planner", objection=stop, standing=own)
    [objected, trusted] = doubts(again)
    assert objected == (
        "Objection to the planner's first plan, stop: it promises +0.00 merit, the rules' action +0.47; then it chose "
        "again."
    )
    assert trusted.startswith("Trust in the planner: its 1 own choice in this run brought +0.00 merit for 3k forward")
    assert doubts(again.model_copy(update={"move": Stop()}))[0].endswith("it kept that.")
    overruled = again.model_copy(update={"by": "rules", "planner_fault": "its plan, stop, promised too little"})
    assert [doubt.rpartition("; ")[2] for doubt in doubts(overruled)] == ["the rules decided."]
    assert doubts(Decision(move=EditPrompt(), reason="r", standing=Standing(llm="mind-1", trust=0.5))) == []
