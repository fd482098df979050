"""What a run reads of other runs, and leaves for later ones: prompts, rewrites, and what rounds brought."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from agent.config.task import TaskConfig
from agent.errors import BadInput
from agent.example_tasks import shipped
from agent.policy.experience import Experience, experience
from agent.protocols import Embed
from agent.records.base import folded
from agent.records.edits import Rewrite
from agent.records.examples import Example
from agent.records.rounds import Round
from eval.tasks.task import Task
from memory.experience import ExperienceFile, ExperienceStore, experience_in_ledgers
from memory.prompts import Entry, PromptMemory, Recalled, rebuild
from memory.remake import source_of
from memory.rewrites import KeptRewrite, RoundRewrites
from memory.run.folder import RunFolder, runs

if TYPE_CHECKING:
    from eval.leaks import Leaks

PROFILE_QUESTIONS = 5
WAIT = 60.0  # seconds; another run has the prompt memory open for moments


class RunMemory:
    """The memory beside the runs, as one run reads it and adds to it.

    Args:
        notify: shows a sentence to the user.
    """

    def __init__(self, folder: RunFolder, task: Task, embed: Embed, notify: Callable[[str], None]) -> None:
        self._folder = folder
        self._task = task
        self._embed = embed
        self._notify = notify
        self._prompts_compared = self._experience_compared = False  # with what the run folders have

    @contextmanager
    def open(self) -> Iterator[PromptMemory]:
        """Prompts and rewrites of all runs, open only while they are used; see `open_memory`."""
        root, server = self._folder.path.parent, self._task.config.memory.chroma
        with open_memory(root, self._embed, self._notify, server=server, compare=not self._prompts_compared) as memory:
            self._prompts_compared = True
            yield memory

    @property
    def asked(self) -> bool:
        """Whether a run asks it. Not a fixed order: it is there to be compared, so it starts from the seed."""
        config = self._task.config
        return config.recall.prompts > 0 and config.observes and "memory" not in config.without

    # --- prompts ---

    @cached_property
    def profile(self) -> str:
        """What the task is, in words that its near neighbours share: the wanted form and some train questions."""
        task = self._task
        questions = [example.question for example in task.train[:PROFILE_QUESTIONS]]
        return "\n".join([task.config.about, *task.scorers.instructions(), *questions])

    def recall(self, about: str = "", limit: int | None = None) -> list[Recalled]:
        """Prompts of earlier runs on near tasks that neither show nor say what this task's rows ask for.

        Args:
            about: what they are to be about, in words, however near; empty: this task, as near as it asks for.
            limit: how many at most; None: as many as the task asks for.
        """
        if not self.asked:
            return []
        config, wanted = self._task.config, self._task.config.recall
        most = wanted.prompts if limit is None else limit
        with self.open() as memory:
            found = memory.recall(
                about or self.profile, model=config.model, limit=most * 3, similarity=0 if about else wanted.similarity
            )
        usable = (recalled for recalled in found if self._is_allowed(recalled) and not self._leaks(recalled))
        return list(islice(usable, most))

    def _is_allowed(self, recalled: Recalled) -> bool:
        """Whether this task may have such a prompt: none that is too long, or retrieves more rows than it may."""
        config, prompt = self._task.config, recalled.entry.prompt
        if prompt.length > max(config.edit.max_length, config.prompt.prompt().length):
            return False
        return prompt.retrieval is None or prompt.retrieval.k <= config.edit.retrieve

    def _leaks(self, recalled: Recalled) -> bool:
        """Whether a prompt shows a held-out row, or gives away any row in its words; for the latter, a note says so.

        Test rows count here: they may have been train rows of the run that the prompt is from.
        """
        entry, task = recalled.entry, self._task
        held_out = {folded(example.question) for example in (*task.validation, *task.test)}
        if any(folded(demo.question) in held_out for demo in entry.prompt.demos):
            return True
        leak = self._rows.found_in(entry.prompt, task.config.prompt.prompt())
        if leak:
            self._notify(f"A prompt of run {entry.run} is not recalled: {leak}.")
        return leak is not None

    @cached_property
    def _rows(self) -> "Leaks":
        from eval.leaks import Leaks

        return Leaks(self._task.train, (*self._task.validation, *self._task.test))

    def remember(self, entry: Entry) -> None:
        """Put a prompt into this run's folder and into the memory."""
        with self.open() as memory:
            self._folder.keep(entry)
            memory.remember(entry)

    # --- rewrites ---

    def recall_rewrites(self, examples: Sequence[Example]) -> list[Rewrite]:
        """What is known to help this model with just these train rows, at most one rewrite each."""
        if not self.asked:
            return []
        config, sources = self._task.config, [source_of(example) for example in examples]
        with self.open() as memory:
            return [*memory.rewrites.recall(sources, model=config.model, task=config.name)]

    def keep_rewrites(self, number: int, made: RoundRewrites) -> None:
        """Put what a round made of hard questions into this run's folder, and its rewrites into the memory.

        Done again, after a kill between the two, it changes nothing but what was missing.
        """
        if not made.kept:
            self._folder.save_round_rewrites(number, made)
            return
        with self.open() as memory:  # opened first: it would take what the folder has beyond it for lost
            self._folder.save_round_rewrites(number, made)
            memory.rewrites.remember(*made.kept)

    # --- what rounds brought ---

    @cached_property
    def experience(self) -> tuple[Experience, ...]:
        """What rounds of other runs brought: those that the task names, as they stood when this run began.

        Raises:
            BadInput: the file that the task names is not there.
        """
        config = self._task.config
        if "memory" in config.without or config.experience == "none":
            return ()
        return self._folder.learned_from(self._experience_of_others)

    def _experience_of_others(self) -> list[Experience]:
        config = self._task.config
        if config.experience != "runs":
            lines = _named(config, Path(self._folder.about.source)).read()
            return [line for line in lines if line.run != self._folder.name]
        own = self._origin, self._folder.name
        return [line for line in self._experience_of_all().read() if (line.origin, line.run) != own]

    def note(self, row: Round) -> None:
        """Let later runs know what a round brought. Done again, after a kill, it changes nothing."""
        config = self._task.config
        line = experience(row, self._folder.name, config.name, config.model)
        if line:
            self._experience_of_all().append(line)

    @property
    def _origin(self) -> str:
        """What tells our runs from those of the same name that other machines have in the database."""
        if not self._task.config.memory.postgres:
            return ""
        from memory.shared.origin import origin_of

        return origin_of(self._folder.path.parent).name

    def _experience_of_all(self) -> ExperienceStore:
        """A file beside the runs, mended where it is damaged; or the database that is named. It has all rounds here."""
        root = self._folder.path.parent
        if self._task.config.memory.postgres:
            from memory.shared.postgres import PostgresExperience, database

            store: ExperienceStore = PostgresExperience(database(self._task.config.memory.postgres), self._origin)
        else:
            store = file = ExperienceFile.beside(root)
            if said := file.mend(lambda: experience_in_ledgers(root)):
                self._notify(said)
        if not self._experience_compared:
            store.complete(experience_in_ledgers(root))
            self._experience_compared = True
        return store


@contextmanager
def open_memory(
    root: Path,
    embed: Embed,
    notify: Callable[[str], None],
    wait: float = WAIT,
    server: str = "",
    compare: bool = False,
) -> Iterator[PromptMemory]:
    """The memory of the runs under `root`, rebuilt from them if it was lost.

    Args:
        notify: shows a sentence to the user.
        wait: seconds to wait for another process that has it open.
        server: address of a Chroma server that is taken in place of the folder `memory`.
        compare: with what the run folders have, also where it seems whole: runs may have used another memory, and a
            server's folder may have been put back from a copy.
    """
    # Before others are kept waiting: the embedder loads, and many folders, over a network, take a while.
    embed([""])
    found = _left(root) if compare else None
    with PromptMemory.open(root / "memory", embed, wait, server) as memory:
        if found is None and memory.lacks_entries:
            found = _left(root)
        if found is not None:
            _complete(memory, found, notify, server)
        yield memory


class Left(NamedTuple):
    """What the run folders have. `faults` says which cannot be read."""

    entries: list[Entry]
    rewrites: list[KeptRewrite]
    faults: list[str]


def _left(root: Path) -> Left:
    found = Left([], [], [])
    for run in runs(root):
        try:
            entries, made = run.remembered(), run.rewrites()
        except BadInput as error:
            found.faults.append(f"Run {run.name} is passed over: {error}")
        else:
            found.entries.extend(entries)
            found.rewrites.extend(made)
    return found


def _complete(memory: PromptMemory, found: Left, notify: Callable[[str], None], server: str) -> None:
    """Put in what the run folders have and the memory has not."""
    lost = memory.lacks_entries
    for fault in found.faults if lost else ():
        notify(fault)
    kept, rewrites = memory.lacking(found.entries), memory.rewrites.lacking(found.rewrites)
    if kept or rewrites:
        if server:
            notify(f"The Chroma server at {server} is given the prompts of the runs here.")
        elif lost:
            notify("The prompt memory was lost: it is rebuilt from the run folders.")
        else:
            notify("The prompt memory is given what it lacks of the run folders.")
    if kept or rewrites or memory.rebuilt:
        rebuild(memory, kept, rewrites)


def check_experience(config: TaskConfig, folder: Path) -> None:
    """Raises BadInput where the task, in this folder, names a file of rounds that it is to read and that is missing."""
    if (config.policy == "learned" or config.plans) and config.experience not in ("runs", "none"):
        _named(config, folder)


def _named(config: TaskConfig, folder: Path) -> ExperienceFile:
    """The file of rounds that the task, in this folder, names. Raises BadInput: it is not there."""
    practice = shipped("practice") / "experience.jsonl"
    file = ExperienceFile(practice if config.experience == "practice" else folder / config.experience)
    if file.lost:
        raise BadInput(
            f"experience: there is no file {file.path}. A path is relative to the task's folder; or take `runs`, "
            "`practice` or `none`."
        )
    return file
