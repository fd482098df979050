"""What the weights of a run have lost elsewhere: on general text, and on other tasks that are to be kept."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from agent.protocols import LanguageModel
from agent.records.drift import Drift, GeneralBaseline
from agent.records.evaluation import Evaluation
from agent.records.examples import Candidate
from agent.records.rounds import KeptScore
from graphs.services.meter import ChargedStore
from memory.run.artefacts import Artefacts
from memory.run.folder import RunFolder

if TYPE_CHECKING:
    from eval.tasks.kept import KeptTask
    from eval.tasks.task import Task

LEAST_DIFFERENCE = 0.01  # nats per token; less is no reason to prefer a pair


class Forgetting:
    """Measures each adapter once; what was measured is kept in the run folder, so that it survives a kill.

    Args:
        model: what answers, with the run's adapters; called only for what was not measured.
        model_of: the same for a task that is to be kept, as it fits the model: what its prompt retrieves are its own
            train rows.
        charge: notes what the step under way has used up; called before a measurement is kept.
    """

    def __init__(
        self,
        folder: RunFolder,
        tasks: Sequence["KeptTask"],
        model: Callable[[], LanguageModel],
        model_of: "Callable[[Task], LanguageModel]",
        charge: Callable[[], None],
    ) -> None:
        self._folder = folder
        self._tasks = tasks
        self._model = model
        self._model_of = model_of
        self._charge = charge
        self._models: dict[str, LanguageModel] = {}  # by the kept task's digest: its train rows are embedded once

    def drift(self, adapter: str | None) -> float | None:
        """What weights have lost on general text against the bare base, in nats per token: 0 of the base itself.

        None: the general text does not fit into the model's window.
        """
        if adapter is None:
            return 0.0
        baseline = self._general_baseline
        if baseline is not None and adapter not in self._drifts:
            from tools.diagnosis.drift import drift

            self._drifts[adapter] = drift(self._model(), adapter, baseline)
            self._charge()
            self._folder.save_drifts(self._drifts)
        found = self._drifts.get(adapter)
        return found.mean if found else None

    def forgets_less(self, adapter: str | None, than: str | None) -> bool:
        """Whether an adapter has lost clearly less on general text than another one. The bare base has lost nothing,
        and costs least to serve: no adapter forgets less than that, whatever its drift by chance is."""
        if than is None:
            return False
        mine, other = self.drift(adapter), self.drift(than)
        return mine is not None and other is not None and mine < other - LEAST_DIFFERENCE

    def kept(self, adapter: str | None) -> tuple[KeptScore, ...]:
        """How an adapter does on the tasks that are to be kept, beside the bare base."""
        found = []
        for kept in self._tasks:
            base, own = self._evaluated(kept, None), self._evaluated(kept, adapter)
            found.append(KeptScore(task=kept.name, base=base.reward, reward=own.reward, rows=len(own.scores)))
        return tuple(found)

    def store_of(self, kept: "KeptTask") -> Artefacts:
        """Where this run keeps what it measured on a task that is to be kept."""
        return Artefacts(self._folder.path / "keep" / kept.digest, self._folder.on_damage)

    @cached_property
    def _drifts(self) -> dict[str, Drift]:
        return self._folder.drifts()

    @cached_property
    def _general_baseline(self) -> GeneralBaseline | None:
        """The bare base on general text: measured once in a run."""
        from tools.diagnosis.drift import general_baseline, probe_digest

        known = self._folder.general_baseline()
        if known and known.probe == probe_digest():
            return known
        measured = general_baseline(self._model())
        self._charge()
        if measured:
            self._drifts.clear()  # of older texts
            self._folder.save_drifts(self._drifts)
            self._folder.save_general_baseline(measured)
        return measured

    def _evaluated(self, kept: "KeptTask", adapter: str | None) -> Evaluation:
        """On all its validation rows, under its own seed prompt."""
        from eval.runner import Runner
        from eval.tasks.fitting import fitted

        store = self.store_of(kept)
        fitting = store.fitting()
        task = fitted(kept.task, fitting) if fitting else kept.task
        prompt = task.config.prompt.prompt()
        if kept.digest not in self._models:
            self._models[kept.digest] = self._model_of(task)
        # Whole answers: a pool of runs keeps answers that were cut short for the scorers of the run's own task only.
        charged, model = ChargedStore(store, self._charge), self._models[kept.digest]
        runner = Runner(task, model, lambda _: prompt, charged, whole=True)
        return runner(Candidate(prompt=prompt.id, adapter=adapter), "validation")
