"""Scores a candidate on rows of a split. Rows that were measured before come from the store."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from agent.counting import plural
from agent.errors import BadInput, LlmUnavailable, NesyLoraError, OutOfMoney
from agent.protocols import Asked, LanguageModel
from agent.records.base import digest
from agent.records.evaluation import Evaluation, ExampleScore, Measurements
from agent.records.examples import Candidate, Example, Prompt, Split
from eval.tasks.fitting import first_of
from eval.tasks.task import Task

# Version of the scorers' rules. Raise it with every change of them: scores of older runs are then measured again.
READING = 2


class EvaluationStore(Protocol):
    """Where measurements are kept, by candidate: the same prompt with another adapter is measured again."""

    def load(self, candidate: Candidate, split: Split) -> Measurements:
        """What was saved for exactly this candidate and split; empty if nothing."""
        ...

    def save(self, measured: Measurements) -> None:
        """Replace what was saved before, in one step."""
        ...


class Runner:
    """Satisfies `agent.protocols.Evaluator`.

    Args:
        prompt_of: finds the prompt behind a candidate's prompt id.
        whole: generate answers to their end, for people to read; else only as far as they change the score.
    """

    def __init__(
        self,
        task: Task,
        model: LanguageModel,
        prompt_of: Callable[[str], Prompt],
        store: EvaluationStore,
        whole: bool = False,
    ) -> None:
        self._task = task
        self._model = model
        self._prompt_of = prompt_of
        self._store = store
        self._stop_early = None if whole else task.scorers.may_stop

    def __call__(self, candidate: Candidate, split: Split, names: Sequence[str] | None = None) -> Evaluation:
        """The candidate's scores on the rows of train or validation that are named, in this order; or on all.

        Raises:
            ValueError: the test split is asked for, or no row at all.
            KeyError: the split has no row of such a name.
            NesyLoraError: a judge did not answer. Nothing of what it was asked is stored, and a run can be resumed.
        """
        [evaluation] = self.each([candidate], split, names)
        return evaluation

    def each(
        self, candidates: Sequence[Candidate], split: Split, names: Sequence[str] | None = None
    ) -> list[Evaluation]:
        """As a call for each, in order; those with the same adapter are answered together.

        Raises:
            ValueError, KeyError, NesyLoraError: as a call for each.
        """
        if split == "test":
            raise ValueError("the test split is sealed: open_test opens it, once, at the end of a run")
        if names is not None and not names:
            raise ValueError("name at least one row, or leave the names out for all")
        return self._evaluate(candidates, split, names)

    def reference_nll(self, candidate: Candidate, names: Sequence[str]) -> list[float | None]:
        """How likely the candidate finds the right answers: mean NLL of the references in the wanted form.

        Args:
            names: validation rows. A row whose reference gets no full marks in the wanted form is left out.

        Returns:
            Nats per token, one number per row that is not left out, in the order of the split; None where it cannot
            be measured, such as a row beyond the model's window.
        """
        scorers = self._task.scorers
        wanted = set(names)
        rows = {
            self._key(row): row
            for row in self._task.validation
            if row.name in wanted and scorers.full_marks(scorers.show(row.answer), row)
        }
        known = self._store.load(candidate, "validation")
        missing = {key: row for key, row in rows.items() if key not in known.nats}
        if missing:
            wanted_form = [("", scorers.show(row.answer)) for row in missing.values()]
            prompt = self._prompt_of(candidate.prompt)
            nats, _ = self._model.nll(prompt, list(missing.values()), wanted_form, adapter=candidate.adapter)
            known = known.model_copy(update={"nats": known.nats | dict(zip(missing, nats, strict=True))})
            self._store.save(known)
        return [known.nats[key] for key in rows]

    def open_test(self, candidate: Candidate) -> Evaluation:
        """The candidate's scores on all test rows. Only for the end of a run: no decision may depend on them.

        Raises:
            NesyLoraError: a judge did not answer.
        """
        [evaluation] = self._evaluate([candidate], "test", None)
        return evaluation

    def _evaluate(self, candidates: Sequence[Candidate], split: Split, names: Sequence[str] | None) -> list[Evaluation]:
        by_name = {row.name: row for row in self._task.rows(split)}
        rows = {self._key(row): row for row in map(by_name.__getitem__, by_name if names is None else names)}
        known = {candidate: self._store.load(candidate, split) for candidate in candidates}
        missing = {
            candidate: {key: row for key, row in rows.items() if key not in measured.scores}
            for candidate, measured in known.items()
        }  # decoding is greedy: a row's answer is the same, whichever rows it is generated with
        for adapter in dict.fromkeys(candidate.adapter for candidate in candidates):
            asked = {pair: of for pair, of in missing.items() if of and pair.adapter == adapter}
            for (candidate, of), texts in zip(asked.items(), self._answers(asked, adapter), strict=True):
                scores = known[candidate].scores | self._scores(of, texts)
                known[candidate] = known[candidate].model_copy(update={"scores": scores})
                self._store.save(known[candidate])
        for candidate in candidates:
            self._refuse_too_long(candidate, split, [known[candidate].scores[key] for key in rows])
        return [
            Evaluation(candidate=candidate, split=split, scores=tuple(known[candidate].scores[key] for key in rows))
            for candidate in candidates
        ]

    def _refuse_too_long(self, candidate: Candidate, split: Split, scores: Sequence[ExampleScore]) -> None:
        """As `eval.tasks.fitting.measure` does before a run, where no tokenizer could: raises BadInput."""
        config, long = self._task.config, [score.example for score in scores if score.too_long]
        measured = config.generation.engine != "openai" or split == "train"
        if measured or not long or config.data.too_long != "refuse" or candidate.prompt != config.prompt.prompt().id:
            return
        what = plural(len(long), f"{split} row")
        raise BadInput(
            f"Its server calls {what} of {config.name} too long for '{config.model}' under the seed prompt: "
            f"{first_of(long)}. Shorten them, or set data.too_long to wrong in the task.yaml of {config.name}: then "
            "they count as wrong. (A run goes on with that in its own task.yaml.)"
        )

    def _key(self, row: Example) -> str:
        """Names a row by its content, and by the settings and scorers under which an answer's score stays the same."""
        generation = self._task.config.generation
        shaping = [row.id, generation.max_new_tokens, self._task.scorers.digest, READING]
        return digest([*shaping, *generation.identity])  # another engine's answers are measured anew

    def _answers(
        self, asked: Mapping[Candidate, Mapping[str, Example]], adapter: str | None
    ) -> list[Sequence[str | None]]:
        """The texts of each candidate's rows; all candidates have this adapter."""
        if not asked:
            return []
        prompts = [Asked(self._prompt_of(pair.prompt), list(rows.values())) for pair, rows in asked.items()]
        new = self._task.config.generation.max_new_tokens
        answers = self._model.generate_each(prompts, adapter=adapter, max_new_tokens=new, stop_early=self._stop_early)
        return [texts for texts, _ in answers]

    def _scores(self, rows: Mapping[str, Example], outputs: Sequence[str | None]) -> dict[str, ExampleScore]:
        answered = {key: (rows[key], text) for key, text in zip(rows, outputs, strict=True) if text is not None}
        try:
            scores = dict(zip(answered, self._task.scorers.score_all(list(answered.values())), strict=True))
        except LlmUnavailable as error:  # the rules can go on without an editor or planner, but not without a judge
            larger_budget = "with a larger budget.usd or budget.llm_tokens in the run's task.yaml"
            way_out = larger_budget if isinstance(error, OutOfMoney) else "once that is mended"
            raise NesyLoraError(
                f"The answers to {len(rows)} rows could not be judged: {error}. "
                f"Nothing is lost: {way_out}, a run goes on with nesylora resume"
            ) from error
        for key in rows.keys() - answered.keys():
            # No answer is a wrong answer, also where the scorers accept an empty one.
            fault = "With this prompt the question is too long for the model's window."
            scores[key] = ExampleScore(
                example=rows[key].name, output="", content=0.0, style=0.0, faults=(fault,), too_long=True
            )
        return {key: scores[key] for key in rows}
