"""Failing rows and what they lack: of the validation rows for a decision, of the train rows for an edit."""

from collections.abc import Sequence

from agent.records.actions import EditPrompt
from agent.records.evaluation import Evaluation
from agent.records.examples import Example
from agent.records.signal import Diagnosis
from graphs.rows.draws import learned_rows
from graphs.rows.labels import features_of, probes_of_run
from graphs.services.run import RunServices
from graphs.state import State, seed_of


def classify(evaluation: Evaluation, examples: Sequence[Example], state: State, services: RunServices) -> Diagnosis:
    """What the failing ones of these rows lack, under the best pair.

    By the classifier's probes; by the rewards alone, which cost nothing, for a policy that does not look.
    """
    from tools.diagnosis.classify import diagnose_by_rewards

    config = services.spec.config
    if not config.observes or "classifier" in config.without:
        return diagnose_by_rewards(evaluation, examples)
    prompt, history = services.folder.prompt(state["best"].prompt), services.folder.rounds()[: state["number"]]
    return services.classifier.diagnose(
        evaluation, examples, prompt, seed_of(state, services),
        known=features_of(history, state["best"], services), own=probes_of_run(history, services),
    )  # fmt: skip


def rows_to_learn_from(action: EditPrompt, state: State, services: RunServices, size: int | None = None) -> Evaluation:
    """The best pair on this round's train rows, without failing rows that lack something else than the edit is about.

    A row that lacks both counts as lacking either. Failing rows beyond those that the classifier looks at stay.

    Args:
        size: how many train rows are looked at; by default as many as the editor learns from.
    """
    evaluation = services.evaluate(state["best"], "train", learned_rows(state, services, size))
    if action.failures == "any":
        return evaluation
    examples = [services.examples[score.example] for score in evaluation.scores]
    found = classify(evaluation, examples, state, services).examples
    others = {row.example for row in found if row.need not in (action.failures, "both")}
    scores = tuple(score for score in evaluation.scores if score.example not in others)
    return evaluation.model_copy(update={"scores": scores})
