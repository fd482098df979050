"""The rule editor: what it proposes."""

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent.config.prompt import Editing
from agent.config.scorers import Contains, Forbid, StartsWith, Words
from agent.records.actions import EditPrompt
from agent.records.base import digest
from agent.records.evaluation import Evaluation
from agent.records.examples import Candidate, Demo, Example, Part, Prompt, Retrieval, Turn
from eval.scoring import TaskScorers
from tools.editing.rule_editor import RuleEditor

FORM, CALM = "Start your answer with", "never use"
SCORERS = TaskScorers(
    [Contains(kind="contains")],
    [
        StartsWith(kind="starts_with", text="ANSWER: "),
        Forbid(kind="forbid", words=("sorry",), say="Please never use sorry."),
    ],
)
TRAIN = [Example(name=f"train:{n}", question=f"Train {n}?", answer=f"Name{n}") for n in range(10)]
HELD = [Example(name=f"validation:{n}", question=f"Held {n}?", answer=f"Name{n}") for n in range(5)]
SEED = Prompt(system="Answer the question.")
WITH_DEMOS = SEED.model_copy(
    update={"demos": tuple(Demo(question=row.question, answer=f"ANSWER: {row.answer}") for row in TRAIN[:2])}
)
BOTH: tuple[Part, ...] = ("system", "demos")
ALL: tuple[Part, ...] = (*BOTH, "retrieval")
RETRIEVING = SEED.model_copy(update={"retrieval": Retrieval(k=2)})


def judged(*outputs: str) -> Evaluation:
    scores = tuple(SCORERS.score(row, output) for row, output in zip(HELD, outputs, strict=False))
    return Evaluation(candidate=Candidate(prompt="p"), split="validation", scores=scores)


def propose(
    prompt: Prompt = SEED,
    outputs: Sequence[str] = ("Name0", "sorry"),
    train: Sequence[Example] = TRAIN,
    parts: Sequence[Part] = BOTH,
    seed: int = 0,
    scorers: TaskScorers = SCORERS,
    retrieves: bool = True,
    **settings: Any,
) -> list[tuple[Prompt, str]]:
    editor = RuleEditor(scorers, Editing(**settings), retrieves=retrieves)
    move = EditPrompt(parts=tuple(parts))
    proposed = editor.propose(prompt, judged(*outputs), train, move, seed)
    return [(edit.prompt, edit.note) for edit in proposed.edits]


# --- the system text -----------------------------------------------------------------------------


def test_what_failed_is_spelled_out_after_what_stood_there() -> None:
    [(edit, note)] = propose(outputs=["Name0"], parts=["system"])
    assert edit.system == 'Answer the question. Start your answer with "ANSWER: ".'
    assert note == "the instruction spelled out"


def test_the_most_frequent_failure_comes_first_and_each_only_once() -> None:
    [(edit, _)] = propose(outputs=["ANSWER: sorry", "ANSWER: sorry", "none"], parts=["system"])
    assert edit.system.index(CALM) < edit.system.index(FORM)
    assert (edit.system.count(CALM), edit.system.count(FORM)) == (1, 1)


def test_a_demand_that_holds_is_not_repeated() -> None:
    assert CALM not in propose(outputs=["Name0"])[0][0].system


def test_an_instruction_already_given_is_not_given_again() -> None:
    proposal = propose(outputs=["Name0"], parts=["system"])[0][0]
    assert propose(proposal, outputs=["Name0"], parts=["system"]) == []


def test_an_empty_system_text_becomes_the_instruction() -> None:
    assert propose(Prompt(), outputs=["Name0"])[0][0].system == 'Start your answer with "ANSWER: ".'


# --- the demonstrations --------------------------------------------------------------------------


def test_demonstrations_are_drawn_few_and_many_and_the_instruction_stays() -> None:
    edits = [edit for edit, _ in propose(demos=4)]
    assert {len(edit.demos) for edit in edits} == {0, 2, 4}
    assert all(FORM in edit.system for edit in edits)


def test_with_only_demonstrations_asked_for_the_system_text_stays() -> None:
    edits = propose(WITH_DEMOS, parts=["demos"])
    assert edits
    assert {edit.system for edit, _ in edits} == {SEED.system}


def test_with_only_the_system_text_asked_for_the_demonstrations_stay() -> None:
    edits = propose(WITH_DEMOS, parts=["system"])
    assert edits
    assert {edit.demos for edit, _ in edits} == {WITH_DEMOS.demos}


def test_present_demonstrations_are_replaced_or_joined_or_one_fewer() -> None:
    edits = [edit.demos for edit, _ in propose(WITH_DEMOS, demos=4, proposals=10)]
    assert WITH_DEMOS.demos[:1] in edits
    assert any(demos[:2] == WITH_DEMOS.demos and len(demos) == 4 for demos in edits)
    assert any(len(demos) == 2 and not set(demos) & set(WITH_DEMOS.demos) for demos in edits)


def answered(outputs: Sequence[str], train: Sequence[Example] = TRAIN, adapter: str | None = None) -> Evaluation:
    """What the pair answers to the train rows."""
    scores = tuple(SCORERS.score(row, output) for row, output in zip(train, outputs, strict=True))
    return Evaluation(candidate=Candidate(prompt="p", adapter=adapter), split="train", scores=scores)


def demonstrated(
    evaluation: Evaluation, seed: int = 0, train: Sequence[Example] = TRAIN, **settings: int
) -> dict[str, set[str]]:
    """The questions that each proposal shows, by its note."""
    proposed = RuleEditor(SCORERS, Editing(**settings)).propose(SEED, evaluation, train, EditPrompt(), seed).edits
    return {edit.note: {demo.question for demo in edit.prompt.demos} for edit in proposed if edit.prompt.demos}


HALF = [f"Name{n}" if n % 2 else "wrong" for n in range(10)]  # as where every other train row is labelled wrongly
RIGHT = "{} demonstrations from train rows whose content it gets right"


def test_rows_that_the_model_gets_right_are_shown_and_so_are_others() -> None:
    right, shown = {row.question for row in TRAIN[1::2]}, set[str]()
    for seed in range(5):
        proposed = demonstrated(answered(HALF), seed)
        assert list(proposed)[:2] == [RIGHT.format(2), "4 demonstrations from all train rows"], "by default"
        assert len(proposed[RIGHT.format(2)]) == 2 and len(proposed[RIGHT.format(4)]) == 4
        assert proposed[RIGHT.format(2)] | proposed[RIGHT.format(4)] <= right
        shown |= proposed["4 demonstrations from all train rows"]
    assert shown - right, "what it gets wrong may need to be shown"


def test_all_rows_may_be_shown_where_being_right_says_little_or_is_rare() -> None:
    plain = ["2 demonstrations from train rows", "4 demonstrations from train rows, drawn anew"]
    labels = [row.model_copy(update={"answer": "yes" if n % 2 else "no"}) for n, row in enumerate(TRAIN)]
    rare = answered(["Name0"] * 10)
    by_heart = answered([row.answer for row in TRAIN], adapter="a")
    always_the_same = answered(["yes"] * 10, labels)
    for evaluation, train in ((rare, TRAIN), (by_heart, TRAIN), (always_the_same, labels)):
        assert list(demonstrated(evaluation, train=train))[:2] == plain
    alike = [row.model_copy(update={"answer": "yes"}) for row in TRAIN]
    assert RIGHT.format(2) in demonstrated(answered(["yes"] * 10, alike), train=alike), "there is no other answer"


def test_no_two_proposals_have_one_name() -> None:
    for outputs in (HALF, ["wrong"] * 10):
        editor = RuleEditor(SCORERS, Editing(proposals=20), retrieves=True)
        notes = [edit.note for edit in editor.propose(WITH_DEMOS, answered(outputs), TRAIN, EditPrompt(), 0).edits]
        assert len(notes) == len(set(notes)) > 7


def test_demonstrations_are_joined_by_rows_that_it_gets_right() -> None:
    outputs = [row.answer if row.name > "train:3" else "wrong" for row in TRAIN]
    for seed in range(5):
        edits = RuleEditor(SCORERS, Editing(proposals=20)).propose(
            WITH_DEMOS, answered(outputs), TRAIN, EditPrompt(), seed
        ).edits  # fmt: skip
        [more] = [edit for edit in edits if edit.note == "2 more demonstrations"]
        assert {demo.question for demo in more.prompt.demos[2:]} <= {row.question for row in TRAIN[4:]}


def test_rows_whose_reference_cannot_be_shown_in_form_are_not_shown() -> None:
    brief = TaskScorers([Contains(kind="contains")], [Words(kind="words", most=1)])
    rows = [Example(name="train:1", question="Short?", answer="Yes"), *TRAIN[:1]]
    wordy = [row.model_copy(update={"answer": "far too many words"}) for row in rows[1:]]
    edits = propose(train=[rows[0], *wordy], scorers=brief)
    assert {demo.question for edit, _ in edits for demo in edit.demos} == {"Short?"}


def test_rows_that_continue_a_conversation_or_have_a_system_text_are_not_shown() -> None:
    rows = [row.model_copy(update={"turns": (Turn(role="user", content="Before"),)}) for row in TRAIN]
    assert all(not edit.demos for edit, _ in propose(train=rows))
    own = [row.model_copy(update={"system": "Be brief."}) for row in TRAIN]
    assert all(not edit.demos for edit, _ in propose(train=own))


def test_no_demonstrations_where_none_are_allowed() -> None:
    assert all(not edit.demos for edit, _ in propose(demos=0))


# --- retrieval -----------------------------------------------------------------------------------


def retrieving(*asked: Any, **options: Any) -> list[Prompt]:
    """The proposals that retrieve."""
    return [edit for edit, _ in propose(*asked, **{"parts": ALL, "proposals": 10} | options) if edit.retrieval]


def test_many_and_few_retrieved_rows_are_proposed_with_the_instruction() -> None:
    edits = retrieving(retrieve=4, floor=0.25)
    assert [edit.retrieval for edit in edits] == [Retrieval(k=4, floor=0.25), Retrieval(k=2, floor=0.25)]
    assert all(FORM in edit.system and not edit.demos for edit in edits)
    [(_, note)] = [(edit, note) for edit, note in propose(parts=ALL, retrieve=1) if edit.retrieval]
    assert note == "the nearest train row as a few-shot example (longer for each question, and shared by none)"


def test_they_replace_demonstrations_or_stand_beside_them() -> None:
    edits = retrieving(WITH_DEMOS, retrieve=4)
    assert [(edit.retrieval and edit.retrieval.k, edit.demos) for edit in edits[:2]] == [(4, ()), (2, WITH_DEMOS.demos)]
    assert all(edit.demos == WITH_DEMOS.demos for edit in retrieving(WITH_DEMOS, parts=["retrieval"]))


def test_a_prompt_that_retrieves_may_retrieve_more_or_nothing_or_get_demonstrations() -> None:
    edits = [edit for edit, _ in propose(RETRIEVING, parts=ALL, retrieve=4)]
    assert Retrieval(k=4) in [edit.retrieval for edit in edits]
    own = SEED.model_copy(update={"retrieval": Retrieval(k=2, floor=0.5)})
    assert Retrieval(k=4, floor=0.5) in [edit.retrieval for edit in retrieving(own, retrieve=4)], "its floor stays"
    assert any(edit.retrieval is None and not edit.demos for edit in edits)
    assert any(edit.retrieval == Retrieval(k=2) and edit.demos for edit in edits)


def test_retrieval_stays_as_it_is_where_only_other_parts_are_asked_for() -> None:
    edits = propose(RETRIEVING, parts=BOTH)
    assert edits and {edit.retrieval for edit, _ in edits} == {Retrieval(k=2)}
    assert all(edit.retrieval is None for edit, _ in propose(parts=BOTH))


def test_rows_are_retrieved_only_where_they_can_be_and_where_there_is_a_choice() -> None:
    assert not retrieving(retrieves=False)
    assert not retrieving(retrieve=0)
    assert [edit.retrieval for edit in retrieving(train=TRAIN[:7], retrieve=4)] == [Retrieval(k=2)]
    assert not retrieving(train=TRAIN[:3], retrieve=4)
    long = [row.model_copy(update={"question": "?" * 300 + row.question}) for row in TRAIN]
    assert [edit.retrieval for edit in retrieving(train=long, max_length=1000)] == [Retrieval(k=2)]


# --- rules for all proposals ---------------------------------------------------------------------

PROMPTS = st.sampled_from(
    [SEED, WITH_DEMOS, Prompt(), RETRIEVING, WITH_DEMOS.model_copy(update={"demos": WITH_DEMOS.demos[:1]})]
)
ASKED = st.fixed_dictionaries(
    {
        "prompt": PROMPTS,
        "outputs": st.lists(st.sampled_from(["Name0", "sorry", "ANSWER: sorry", "ANSWER: Name1"]), max_size=5),
        "train": st.lists(st.sampled_from(TRAIN), unique=True),
        "parts": st.sampled_from([BOTH, ALL, ("system",), ("demos",), ("retrieval",)]),
        "seed": st.integers(0, 5),
        "demos": st.integers(0, 5),
        "proposals": st.integers(1, 8),
        "max_length": st.integers(20, 400),
    }
)


@given(ASKED)
def test_proposals_are_new_different_few_and_short(asked: dict[str, Any]) -> None:
    edits = [edit for edit, _ in propose(**asked)]
    assert len({edit.id for edit in edits} | {asked["prompt"].id}) == len(edits) + 1
    assert len(edits) <= asked["proposals"]
    assert all(edit.length <= asked["max_length"] for edit in edits)


@given(ASKED)
def test_only_passing_train_rows_become_demonstrations_and_at_most_as_many_as_allowed(asked: dict[str, Any]) -> None:
    present = asked["prompt"]
    rows = {Demo(question=row.question, answer=f"ANSWER: {row.answer}") for row in asked["train"]}
    for edit, _ in propose(**asked):
        assert set(edit.demos) <= rows | set(present.demos)
        assert len(edit.demos) <= max(asked["demos"], len(present.demos))
        assert len({demo.question for demo in edit.demos}) == len(edit.demos)


@given(ASKED)
def test_the_same_seed_proposes_the_same(asked: dict[str, Any]) -> None:
    assert propose(**asked) == propose(**asked)


def test_another_seed_draws_other_rows() -> None:
    assert propose(seed=0) != propose(seed=1)


def test_a_changed_copy_has_an_id_of_its_own() -> None:
    assert SEED.id == digest(SEED.model_dump(mode="json"))
    for edit, _ in propose(SEED):
        assert edit.id == digest(edit.model_dump(mode="json")) != SEED.id
