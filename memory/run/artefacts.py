"""What a run made and measured: prompts, adapters, evaluations, rewrites; each a file, named by its id.

A damaged file is reported and set aside, and what it held is made again, by the process that has the run; see
`memory.run.folder.RunFolder.mend`. To others it is an error.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from agent.errors import BadInput
from agent.policy.experience import Experience
from agent.records.drift import Drift, GeneralBaseline
from agent.records.evaluation import Fitting, Measurements
from agent.records.examples import Candidate, Prompt, Split
from memory.prompts import Entry
from memory.rewrites import KeptRewrite, RoundRewrites
from memory.storage.damage import is_damage, set_aside
from memory.storage.disk import append_line, whole_lines, write_atomically
from memory.storage.records import parse_record, read_record

R = TypeVar("R")
EXPERIENCES = TypeAdapter(tuple[Experience, ...])
DRIFTS = TypeAdapter(dict[str, Drift])


class Artefacts:
    """The files of one run, except its ledger and logs. Whatever writes may raise NesyLoraError: the disk is full."""

    def __init__(self, path: Path, on_damage: Callable[[str], None] | None = None) -> None:
        self.path = path.resolve()
        self.on_damage = on_damage  # takes a sentence; None: damage is an error, and everything stays where it is

    def save_prompt(self, prompt: Prompt) -> str:
        """Writes prompts/<id>.json, after a line in prompts.jsonl that it can be restored from; returns the id."""
        path = self._place("prompts", prompt.id, ".json")
        if not path.exists():
            append_line(self._prompts, prompt.model_dump_json(), sync=False)
            write_atomically(path, prompt.model_dump_json(indent=2))
        return prompt.id

    def prompt(self, id: str) -> Prompt:
        """The saved prompt, if need be from prompts.jsonl.

        Raises:
            BadInput: not an id, not in this run, or changed since it was saved.
        """
        path = self._place("prompts", id, ".json")
        try:
            prompt = read_record(Prompt, path)
            if prompt.id != id:
                raise BadInput(f"{path} was changed after it was saved (it is now prompt {prompt.id}). Put it back.")
        except BadInput:
            if (restored := self._restored_prompt(id)) is None:
                raise
            return restored
        return prompt

    def _restored_prompt(self, id: str) -> Prompt | None:
        path = self._place("prompts", id, ".json")
        for number, line in enumerate(whole_lines(self._prompts), 1):
            try:
                prompt = parse_record(Prompt, line, f"{self._prompts}, line {number},")
            except BadInput:
                continue
            if prompt.id == id:
                if self.on_damage:
                    write_atomically(path, prompt.model_dump_json(indent=2))
                    self.on_damage(f"The file prompts/{path.name} was damaged; it is restored from prompts.jsonl.")
                return prompt
        return None

    def adapter_folder(self, id: str) -> Path:
        """Where the adapter is, or is to be written. Raises BadInput: not an id."""
        return self._place("adapters", id)

    def has_adapter(self, id: str) -> bool:
        """Whether it was written to its end: its last file is named `complete`."""
        return (self.adapter_folder(id) / "complete").is_file()

    def set_adapter_aside(self, id: str) -> str:
        """Moves a damaged adapter out of the way, and says so in the beginning of a sentence."""
        return set_aside(self.adapter_folder(id), self.path)

    def discard_trainings(self) -> None:
        """Removes checkpoints of trainings: after a round, what was cancelled or has failed is not gone on with."""
        for file in (self.path / "adapters").glob("*.training*"):
            file.unlink(missing_ok=True)

    def save(self, measured: Measurements) -> None:
        """Keeps all that is known of a candidate on a split. Replaces what was kept before."""
        write_atomically(self._evaluation(measured.candidate, measured.split), measured.model_dump_json(indent=2))

    def load(self, candidate: Candidate, split: Split) -> Measurements:
        """What `save` kept for just this candidate and split; empty if nothing."""
        known = self._kept(self._evaluation(candidate, split), Measurements.model_validate_json, "measured again")
        return known or Measurements(candidate=candidate, split=split)

    def keep(self, entry: Entry) -> None:
        """Keeps an entry of the prompt memory, so that the memory can be rebuilt."""
        write_atomically(self._place("remembered", entry.prompt.id, ".json"), entry.model_dump_json(indent=2))

    def remembered(self) -> list[Entry]:
        """All entries that `keep` kept, by the id of their prompt. Raises BadInput: a file is damaged."""
        files = sorted((self.path / "remembered").glob("*.json"))
        found = [self._kept(path, Entry.model_validate_json, "lost to a memory that is rebuilt") for path in files]
        return [entry for entry in found if entry]

    def save_round_rewrites(self, number: int, made: RoundRewrites) -> None:
        """Keeps what a round made of hard questions. In one file, so that a kill leaves all of it or nothing.

        A second time for the same round changes nothing.
        """
        path = self._rewrites_file(number)
        if not path.exists():
            write_atomically(path, made.model_dump_json(indent=2))

    def round_rewrites(self, number: int) -> RoundRewrites | None:
        """What `save_round_rewrites` kept for a round."""
        return self._kept(self._rewrites_file(number), RoundRewrites.model_validate_json, "asked for again, or lost")

    def rewrites(self) -> list[KeptRewrite]:
        """All that this run kept, by id: to be trained on, and to rebuild the memory from."""
        numbers = [int(path.stem.removeprefix("round-")) for path in (self.path / "rewrites").glob("round-*.json")]
        made = filter(None, map(self.round_rewrites, numbers))
        return sorted((rewrite for of_round in made for rewrite in of_round.kept), key=lambda rewrite: rewrite.id)

    def learned_from(self, known: Callable[[], Sequence[Experience]]) -> tuple[Experience, ...]:
        """What this run's policy learns from: `known` is asked, and kept, once, so that a resume decides the same.

        Raises BadInput: what was kept cannot be read; and what `known` raises.
        """
        path = self.path / "experience.json"
        kept = self._kept(path, EXPERIENCES.validate_json, "taken again from the other runs as they stand now")
        if kept is None:
            kept = tuple(known())
            write_atomically(path, EXPERIENCES.dump_json(kept).decode())
        return kept

    def save_general_baseline(self, baseline: GeneralBaseline) -> None:
        """Keeps what the bare base does on general text, which drift is measured against."""
        write_atomically(self.path / "general.json", baseline.model_dump_json(indent=2))

    def general_baseline(self) -> GeneralBaseline | None:
        """What `save_general_baseline` kept, if anything."""
        return self._kept(self.path / "general.json", GeneralBaseline.model_validate_json, "measured again")

    def save_fitting(self, fitting: Fitting) -> None:
        """Keeps how the task's rows fit the model."""
        write_atomically(self.path / "rows.json", fitting.model_dump_json(indent=2))

    def fitting(self) -> Fitting | None:
        """What `save_fitting` kept; None before, and in runs of older versions, which take rows as they are."""
        return self._kept(self.path / "rows.json", Fitting.model_validate_json, "measured again")

    def save_drifts(self, drifts: Mapping[str, Drift]) -> None:
        """Keeps what each adapter, by its id, has lost on general text."""
        write_atomically(self.path / "drifts.json", DRIFTS.dump_json(dict(drifts), indent=2).decode())

    def drifts(self) -> dict[str, Drift]:
        """What `save_drifts` kept; empty before. Raises BadInput: the file is damaged."""
        return self._kept(self.path / "drifts.json", DRIFTS.validate_json, "measured again") or {}

    def _kept(self, path: Path, read: Callable[[bytes], R], fate: str) -> R | None:
        """What `read` makes of a file; None where there is none, or a damaged one, which is set aside.

        Args:
            fate: what then becomes of its contents, for the user.

        Raises:
            BadInput: it is damaged and nobody takes reports of damage here; or it is of another version.
        """
        if not path.exists():
            return None
        try:
            return read(path.read_bytes())
        except ValidationError as error:
            if self.on_damage is None or not is_damage(error):
                raise BadInput(f"{path} cannot be read: {error}. Put it back from a copy.") from error
        self.on_damage(f"{set_aside(path, self.path)}; what it held is {fate}.")
        return None

    @property
    def _prompts(self) -> Path:
        return self.path / "prompts.jsonl"

    def _rewrites_file(self, number: int) -> Path:
        return self.path / "rewrites" / f"round-{number}.json"

    def _evaluation(self, candidate: Candidate, split: Split) -> Path:
        return self._place("evaluations", candidate.id, f"-{split}.json")

    def _place(self, kind: str, id: str, ending: str = "") -> Path:
        path = (self.path / kind / f"{id}{ending}").resolve()
        if not re.fullmatch("[0-9a-f]{12}", id) or not path.is_relative_to(self.path):
            raise BadInput(f"{id!r} names nothing in {self.path / kind}: an id is twelve of the digits 0-9 and a-f.")
        return path
