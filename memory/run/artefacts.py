"""What a run made and measured: prompts, adapters, evaluations, rewrites; each a file, named by its id."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from agent.errors import BadInput
from agent.policy.experience import Experience
from agent.records.drift import Drift, GeneralBaseline
from agent.records.evaluation import Fitting, Measurements
from agent.records.examples import Candidate, Prompt, Split
from memory.prompts import Entry
from memory.rewrites import KeptRewrite, RoundRewrites
from memory.storage.disk import write_atomically
from memory.storage.records import read_record

EXPERIENCES = TypeAdapter(tuple[Experience, ...])
DRIFTS = TypeAdapter(dict[str, Drift])


class Artefacts:
    """The files of one run, except its ledger and logs. Whatever writes may raise NesyLoraError: the disk is full."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()

    def save_prompt(self, prompt: Prompt) -> str:
        """Writes prompts/<id>.json, and returns the id."""
        path = self._place("prompts", prompt.id, ".json")
        if not path.exists():
            write_atomically(path, prompt.model_dump_json(indent=2))
        return prompt.id

    def prompt(self, id: str) -> Prompt:
        """The saved prompt.

        Raises:
            BadInput: not an id, not in this run, or changed since it was saved.
        """
        path = self._place("prompts", id, ".json")
        prompt = read_record(Prompt, path)
        if prompt.id != id:
            raise BadInput(f"{path} was changed after it was saved (it is now prompt {prompt.id}). Put it back.")
        return prompt

    def adapter_folder(self, id: str) -> Path:
        """Where the adapter is, or is to be written. Raises BadInput: not an id."""
        return self._place("adapters", id)

    def has_adapter(self, id: str) -> bool:
        """Whether it was written to its end: its last file is an empty one named `complete`."""
        return (self.adapter_folder(id) / "complete").is_file()

    def save(self, measured: Measurements) -> None:
        """Keeps all that is known of a candidate on a split. Replaces what was kept before."""
        write_atomically(self._evaluation(measured.candidate, measured.split), measured.model_dump_json(indent=2))

    def load(self, candidate: Candidate, split: Split) -> Measurements:
        """What `save` kept for just this candidate and split; empty if nothing."""
        path = self._evaluation(candidate, split)
        return read_record(Measurements, path) if path.exists() else Measurements(candidate=candidate, split=split)

    def keep(self, entry: Entry) -> None:
        """Keeps an entry of the prompt memory, so that the memory can be rebuilt."""
        write_atomically(self._place("remembered", entry.prompt.id, ".json"), entry.model_dump_json(indent=2))

    def remembered(self) -> list[Entry]:
        """All entries that `keep` kept, by the id of their prompt. Raises BadInput: a file is damaged."""
        return [read_record(Entry, path) for path in sorted((self.path / "remembered").glob("*.json"))]

    def save_round_rewrites(self, number: int, made: RoundRewrites) -> None:
        """Keeps what a round made of hard questions. In one file, so that a kill leaves all of it or nothing.

        A second time for the same round changes nothing.
        """
        path = self._rewrites_file(number)
        if not path.exists():
            write_atomically(path, made.model_dump_json(indent=2))

    def round_rewrites(self, number: int) -> RoundRewrites | None:
        """What `save_round_rewrites` kept for a round."""
        path = self._rewrites_file(number)
        return read_record(RoundRewrites, path) if path.exists() else None

    def rewrites(self) -> list[KeptRewrite]:
        """All that this run kept, by id: to be trained on, and to rebuild the memory from."""
        made = [read_record(RoundRewrites, path) for path in (self.path / "rewrites").glob("round-*.json")]
        return sorted(
            (rewrite for round_rewrites in made for rewrite in round_rewrites.kept), key=lambda rewrite: rewrite.id
        )

    def learned_from(self, known: Callable[[], Sequence[Experience]]) -> tuple[Experience, ...]:
        """What this run's policy learns from: `known` is asked, and kept, once, so that a resume decides the same.

        Raises BadInput: what was kept cannot be read; and what `known` raises.
        """
        path = self.path / "experience.json"
        if not path.exists():
            write_atomically(path, EXPERIENCES.dump_json(tuple(known())).decode())
        try:
            return EXPERIENCES.validate_json(path.read_bytes())
        except ValidationError as error:
            raise BadInput(f"{path} cannot be read: {error}. Put it back from a copy.") from error

    def save_general_baseline(self, baseline: GeneralBaseline) -> None:
        """Keeps what the bare base does on general text, which drift is measured against."""
        write_atomically(self.path / "general.json", baseline.model_dump_json(indent=2))

    def general_baseline(self) -> GeneralBaseline | None:
        """What `save_general_baseline` kept, if anything."""
        path = self.path / "general.json"
        return read_record(GeneralBaseline, path) if path.exists() else None

    def save_fitting(self, fitting: Fitting) -> None:
        """Keeps how the task's rows fit the model."""
        write_atomically(self.path / "rows.json", fitting.model_dump_json(indent=2))

    def fitting(self) -> Fitting | None:
        """What `save_fitting` kept; None before, and in runs of older versions, which take rows as they are."""
        path = self.path / "rows.json"
        return read_record(Fitting, path) if path.exists() else None

    def save_drifts(self, drifts: Mapping[str, Drift]) -> None:
        """Keeps what each adapter, by its id, has lost on general text."""
        write_atomically(self.path / "drifts.json", DRIFTS.dump_json(dict(drifts), indent=2).decode())

    def drifts(self) -> dict[str, Drift]:
        """What `save_drifts` kept; empty before. Raises BadInput: the file is damaged."""
        path = self.path / "drifts.json"
        try:
            return DRIFTS.validate_json(path.read_bytes()) if path.exists() else {}
        except ValidationError as error:
            raise BadInput(f"{path} cannot be read: {error}. Put it back from a copy, or remove it.") from error

    def _rewrites_file(self, number: int) -> Path:
        return self.path / "rewrites" / f"round-{number}.json"

    def _evaluation(self, candidate: Candidate, split: Split) -> Path:
        return self._place("evaluations", candidate.id, f"-{split}.json")

    def _place(self, kind: str, id: str, ending: str = "") -> Path:
        path = (self.path / kind / f"{id}{ending}").resolve()
        if not re.fullmatch("[0-9a-f]{12}", id) or not path.is_relative_to(self.path):
            raise BadInput(f"{id!r} names nothing in {self.path / kind}: an id is twelve of the digits 0-9 and a-f.")
        return path
