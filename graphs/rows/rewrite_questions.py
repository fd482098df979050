"""Hard train questions in other words, which become training rows where the model then answers well."""

from collections.abc import Mapping, Sequence

from agent.errors import LlmUnavailable
from agent.records.actions import EditPrompt
from agent.records.evaluation import ExampleScore
from agent.records.examples import Example
from graphs.rows.failures import rows_to_learn_from
from graphs.services.run import RunServices
from graphs.state import State, action_of
from memory.remake import source_of
from memory.rewrites import KeptRewrite, RoundRewrites
from memory.rewriting import try_rewrites


def remake_questions(state: State, services: RunServices) -> RoundRewrites | None:
    """Rewrites of this round's hard train questions; None if there is nothing to rewrite.

    Rewrites that are kept are in the run folder and in the memory from then on. They are not asked for again, not even
    when a kill makes the same round start anew.
    """
    number = state["number"]
    made = services.folder.round_rewrites(number) or _remade(state, services)
    if made:
        services.memory.keep_rewrites(number, made)
    return made


def _remade(state: State, services: RunServices) -> RoundRewrites | None:
    editor, best = services.textgrad, state["best"]
    assert editor is not None, "rules write no questions"
    hard, remark = _hard(state, services), ""
    if not hard:
        return None

    def ask(missing: Sequence[tuple[Example, ExampleScore]]) -> Mapping[str, str]:
        nonlocal remark
        try:
            return editor.reword(missing)
        except LlmUnavailable as error:
            remark = f"no question was rewritten: {error}"
            return {}

    task, prompt = services.spec, services.folder.prompt(best.prompt)

    def answer(rows: Sequence[Example]) -> list[str]:
        """To their end: these answers become training rows."""
        new = task.config.generation.max_new_tokens
        answers, _ = services.model.generate(prompt, rows, adapter=best.adapter, max_new_tokens=new)
        return [answer or "" for answer in answers]

    kept, remaking = try_rewrites(
        hard,
        services.memory.recall_rewrites([example for example, _ in hard]),
        ask,
        answer,
        task.scorers.score_all,
        prompt=best.prompt,
        taken=[row.question for row in (*task.train, *task.validation, *task.test)],
    )
    where = {"task": task.config.name, "model": task.config.model, "run": services.folder.name}
    return RoundRewrites(
        remaking=remaking, kept=tuple(KeptRewrite(**dict(rewrite), **where) for rewrite in kept), remark=remark
    )


def _hard(state: State, services: RunServices) -> list[tuple[Example, ExampleScore]]:
    """Failing train rows of this round without a kept rewrite. Twice as many rows are scored as are wanted."""
    wanted, known = services.spec.config.edit.rewrites, {rewrite.source for rewrite in services.folder.rewrites()}
    looked = rows_to_learn_from(action_of(state, EditPrompt), state, services, 2 * wanted)
    failing = [(services.examples[score.example], score) for score in looked.scores if score.reward < 1]
    return [(example, score) for example, score in failing if source_of(example) not in known][:wanted]
