"""Hard train questions in other words, which become training rows where the model then answers well."""

from collections.abc import Mapping, Sequence

from agent.errors import LlmUnavailable
from agent.records import Candidate, Example, ExampleScore
from graphs.context import Context
from memory.remake import reword, source_of
from memory.rewrites import KeptRewrite, Reworded


def remake_questions(context: Context, best: Candidate, number: int) -> Reworded | None:
    """What came of it in this round; None without anything to rewrite.

    Kept rewrites stand in the run folder and in the memory from then on, and are not asked for again: not even in the
    same round, when a kill makes it start anew.
    """
    made = context.folder.reworded(number) or _remade(context, best)
    if made:
        context.memory.keep_rewrites(number, made)
    return made


def _remade(context: Context, best: Candidate) -> Reworded | None:
    editor = context.textgrad
    assert editor is not None, "rules write no questions"
    hard, remark = _hard(context, best), ""
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
    kept, remaking = reword(
        hard,
        context.memory.recall_rewrites([example for example, _ in hard]),
        ask,
        # To their end: these answers become training rows.
        lambda rows: [
            answer or ""
            for answer in context.model.generate(
                prompt, rows, adapter=best.adapter, max_new_tokens=task.config.generation.max_new_tokens
            )
        ],
        task.scorers.score_all,
        prompt=best.prompt,
        taken=[row.question for row in (*task.train, *task.validation, *task.test)],
    )
    where = {"task": task.config.name, "model": task.config.model, "run": context.folder.name}
    return Reworded(
        remaking=remaking, kept=tuple(KeptRewrite(**dict(rewrite), **where) for rewrite in kept), remark=remark
    )


def _hard(context: Context, best: Candidate) -> list[tuple[Example, ExampleScore]]:
    """The first failing train rows without a kept rewrite; twice as many answers as are wanted are looked through."""
    wanted, known = context.spec.config.edit.rewrites, {rewrite.source for rewrite in context.folder.rewrites()}
    looked = context.evaluate(best, "train", max(1, 2 * wanted + len(known)))
    failing = [(context.examples[score.example], score) for score in looked.scores if score.reward < 1]
    return [(example, score) for example, score in failing if source_of(example) not in known][:wanted]
