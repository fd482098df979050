"""Hard train questions in other words, which become training rows where the model then answers well."""

from collections.abc import Mapping, Sequence

from agent.errors import LlmUnavailable
from agent.records.evaluation import ExampleScore
from agent.records.examples import Example
from graphs.rows.draws import learned_rows
from graphs.services.run import RunServices
from graphs.state import State
from memory.remake import source_of
from memory.rewrites import KeptRewrite, RoundRewrites
from memory.rewriting import try_rewrites


def remake_questions(state: State, context: RunServices) -> RoundRewrites | None:
    """What came of it in this round; None without anything to rewrite.

    Kept rewrites stand in the run folder and in the memory from then on, and are not asked for again: not even in the
    same round, when a kill makes it start anew.
    """
    number = state["number"]
    made = context.folder.round_rewrites(number) or _remade(state, context)
    if made:
        context.memory.keep_rewrites(number, made)
    return made


def _remade(state: State, context: RunServices) -> RoundRewrites | None:
    editor, best = context.textgrad, state["best"]
    assert editor is not None, "rules write no questions"
    hard, remark = _hard(state, context), ""
    if not hard:
        return None

    def ask(missing: Sequence[tuple[Example, ExampleScore]]) -> Mapping[str, str]:
        nonlocal remark
        try:
            return editor.reword(missing)
        except LlmUnavailable as error:
            remark = f"no question was rewritten: {error}"
            return {}

    task, prompt = context.spec, context.folder.prompt(best.prompt)

    def answer(rows: Sequence[Example]) -> list[str]:
        """To their end: these answers become training rows."""
        new = task.config.generation.max_new_tokens
        answers, _ = context.model.generate(prompt, rows, adapter=best.adapter, max_new_tokens=new)
        return [answer or "" for answer in answers]

    kept, remaking = try_rewrites(
        hard,
        context.memory.recall_rewrites([example for example, _ in hard]),
        ask,
        answer,
        task.scorers.score_all,
        prompt=best.prompt,
        taken=[row.question for row in (*task.train, *task.validation, *task.test)],
    )
    where = {"task": task.config.name, "model": task.config.model, "run": context.folder.name}
    return RoundRewrites(
        remaking=remaking, kept=tuple(KeptRewrite(**dict(rewrite), **where) for rewrite in kept), remark=remark
    )


def _hard(state: State, context: RunServices) -> list[tuple[Example, ExampleScore]]:
    """Failing train rows without a kept rewrite, of this round's rows; twice as many are looked through as wanted."""
    wanted, known = context.spec.config.edit.rewrites, {rewrite.source for rewrite in context.folder.rewrites()}
    looked = context.evaluate(state["best"], "train", learned_rows(state, context, 2 * wanted))
    failing = [(context.examples[score.example], score) for score in looked.scores if score.reward < 1]
    return [(example, score) for example, score in failing if source_of(example) not in known][:wanted]
