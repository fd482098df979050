"""`nesylora export`: from a run to a folder that other programs take."""

import contextlib
import io
import json
import os
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from agent.config.generation import require_weights
from agent.config.task import TaskConfig
from agent.errors import BadInput
from agent.protocols import Progress
from agent.records.examples import Prompt
from agent.records.rounds import Round
from agent.records.training import read_training
from eval.tasks.task import load_config
from export.base import Base, base_folder, describe_base, sha256
from export.beside_weights import save_generation_config, save_tokenizer, tokenizer_files
from export.card import card, merged_card
from export.chat_template import TRIED, refined_template
from export.manifest import FILE, Manifest, RoundExcerpt
from export.notes import attaches, notes
from export.portable import portable_settings, without_folders
from graphs.context import Context
from graphs.services.run import RunServices
from graphs.serving import best_pair
from memory.run.about import own_version
from memory.run.folder import RunFolder
from memory.storage.disk import write_atomically

if TYPE_CHECKING:
    from tools.model.chat_template import Renderer

SUMS = "SHA256SUMS"
MERGED = "merged"
GGUF_TYPES = ("f16", "q8_0", "lora")
NEXT_TURN = "\nUser:"  # of models without a chat template


@dataclass(frozen=True)
class Wanted:
    """What goes into a bundle beside the adapter and the prompt.

    Attributes:
        merged: the whole model as safetensors.
        gguf: the whole model as GGUF, by number format; or `lora`, the adapter alone.
        ollama: a Modelfile for the first whole one of `gguf`.
        base: the hub's name of a base that the run took from a folder.
    """

    merged: bool = False
    gguf: tuple[str, ...] = ()
    ollama: bool = False
    base: str | None = None

    def __post_init__(self) -> None:
        for kind in self.gguf:
            if kind not in GGUF_TYPES:
                raise BadInput(f"GGUF is written as {', '.join(GGUF_TYPES)}, not as {kind}")
        if self.ollama and set(self.gguf) <= {"lora"}:
            raise BadInput("a Modelfile is for a GGUF file: ask for --gguf f16 or --gguf q8_0 too")


def export_run(
    run: Path, into: Path | None = None, wanted: Wanted | None = None, progress: Progress | None = None
) -> Path:
    """Write the best pair of a run as a bundle.

    Args:
        run: its folder.
        into: the bundle's folder; by default `bundle` in the run's. A bundle that is there already is replaced.
        wanted: what goes into it.
        progress: shows how far it is.

    Returns:
        The bundle's folder.

    Raises:
        BadInput: nothing was measured yet, the base or the task's rows are not here any more, or `into` holds
            something else.
        NesyLoraError: what is wanted cannot be made of this model.
    """
    folder = RunFolder.open(run)
    with folder.as_begun():
        require_weights(load_config(folder.task_file), "A bundle")
    target = (into or folder.path / "bundle").resolve()
    if target.exists() and any(target.iterdir()) and not (target / FILE).is_file():
        raise BadInput(f"{target} holds something else than a bundle: give --into a new folder")
    draft = target.with_name(f".{target.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        _Export(folder, draft, target.name, wanted or Wanted(), progress or (lambda *_: None)).write()
        shutil.rmtree(target, ignore_errors=True)
        os.replace(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def seal(bundle: Path, manifest: Manifest) -> None:
    """Write manifest, card and hashes of a bundle whose other files are there."""
    prompt = Prompt.model_validate_json((bundle / "prompt.json").read_bytes())
    write_atomically(bundle / FILE, manifest.model_dump_json(indent=2))
    write_atomically(bundle / "README.md", card(manifest, prompt))
    files = sorted(path for path in bundle.rglob("*") if path.is_file() and path.name != SUMS)
    lines = [f"{sha256(path)}  {path.relative_to(bundle).as_posix()}\n" for path in files]
    write_atomically(bundle / SUMS, "".join(lines))


@dataclass
class _Export:
    """One export under way."""

    run: RunFolder
    into: Path
    name: str
    wanted: Wanted
    progress: Progress
    gguf: list[str] = field(default_factory=list)

    def write(self) -> None:
        from tools.model.loading import load_renderer

        self.progress("exporting", 0, 4, "prompt and template")
        render, _ = load_renderer(
            self.config.model, chat_template_kwargs=self.config.chat_template_kwargs, progress=self.progress
        )
        template = refined_template(render, self.prompt)
        save_tokenizer(render, template, self.into)
        write_atomically(self.into / "prompt.json", self.prompt.model_dump_json(indent=2))
        if self.prompt.retrieval:
            self._write_demos()
        self._write_task()
        self._write_ledger()
        new = self.config.generation.max_new_tokens
        save_generation_config(render, base_folder(self.config.model), new, self.into)
        if self.adapter:
            self._write_adapter(self.adapter)
        manifest = self._manifest(render, template)
        if self.wanted.merged or self.wanted.gguf:
            self.progress("exporting", 1, 4, "whole model")
            self._write_model(render, manifest)
            manifest = manifest.model_copy(update={"gguf": tuple(self.gguf)})
        if self.wanted.ollama:
            from export.formats.ollama import modelfile

            write_atomically(self.into / "Modelfile", modelfile(render, self.prompt, manifest))
        self.progress("exporting", 3, 4, "card")
        seal(self.into, manifest)
        self.progress("exporting", 4, 4)

    # --- what the run knows ---

    @cached_property
    def config(self) -> TaskConfig:
        with self.run.as_begun():
            return load_config(self.run.task_file)

    @cached_property
    def prompt(self) -> Prompt:
        return self.run.prompt(best_pair(self.run).prompt)

    @cached_property
    def adapter(self) -> Path | None:
        best = best_pair(self.run)
        return self.run.adapter_folder(best.adapter) if best.adapter else None

    @cached_property
    def dtype(self) -> str:
        """In which the model computes; where the task leaves it open, what this machine takes."""
        from tools.model.loading import dtype_name, pick_device

        return dtype_name(self.config.dtype, pick_device(self.config.device))

    @cached_property
    def base(self) -> Base:
        return describe_base(self.config, base_folder(self.config.model), self.dtype, self.wanted.base)

    # --- files ---

    def _write_demos(self) -> None:
        """The train rows that the prompt may retrieve. They are read again: the task must be unchanged."""
        from memory.retrieval import NearestRows

        services = RunServices(Context(run=str(self.run.path)))
        retriever = services.retriever
        assert isinstance(retriever, NearestRows)
        lines = (demo.model_dump_json() for demo in retriever.demos)
        write_atomically(self.into / "demos.jsonl", "\n".join(lines) + "\n")

    def _write_task(self) -> None:
        """The settings, without what only this machine or its network knows."""
        values = portable_settings(self.config, self.base.hub)
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        write_atomically(self.into / "task.yaml", text)

    def _write_ledger(self) -> None:
        lines = (excerpt.model_dump_json() for excerpt in self._rounds())
        write_atomically(self.into / "ledger.jsonl", "".join(f"{line}\n" for line in lines))

    def _write_adapter(self, adapter: Path) -> None:
        from tools.adapters.files import check_files

        check_files(adapter)
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        config |= {"base_model_name_or_path": self.base.hub, "revision": self.base.revision}
        write_atomically(self.into / "adapter_config.json", json.dumps(config, indent=2))
        shutil.copyfile(adapter / "adapter_model.safetensors", self.into / "adapter_model.safetensors")

    def _write_model(self, render: "Renderer", manifest: Manifest) -> None:
        """The whole model: as safetensors, as GGUF, or both."""
        from tools.model.loading import load_model

        model: Any
        model, _ = load_model(self.config.model, device="cpu", dtype=self.dtype, progress=self.progress)
        file = f"{self.config.name}-{{}}.gguf"
        if "lora" in self.wanted.gguf:
            from export.formats.gguf_lora import write_lora_gguf

            if self.adapter is None:
                raise BadInput("the best pair of this run has no adapter to be written: leave --gguf lora out")
            write_lora_gguf(model, self.adapter, self.into / file.format("lora"), self.config.name)
        if self.adapter:
            from export.formats.merging import merge

            model = merge(model, self.adapter, render.prompt_ids(Prompt(system=self.prompt.system), TRIED[0]))
        self.progress("exporting", 2, 4, "whole model")
        for kind in sorted({*self.wanted.gguf} - {"lora"}):
            from export.formats.gguf_file import write_gguf

            write_gguf(model, self.into, self.into / file.format(kind), kind, self.config.name)
            self.gguf.append(file.format(kind))
        if self.wanted.merged:
            folder = self.into / MERGED
            with contextlib.redirect_stderr(io.StringIO()):  # transformers draws a bar of its own
                model.save_pretrained(folder)
            for file in ("generation_config.json", *tokenizer_files(self.into)):
                shutil.copyfile(self.into / file, folder / file)
            write_atomically(folder / "README.md", merged_card(manifest))

    # --- the manifest ---

    def _manifest(self, render: "Renderer", template: str | None) -> Manifest:
        config, outcome, first = self.config, self.run.outcome(), self.run.baseline()
        assert first is not None, "a run with a best pair has a baseline"
        rounds = self.run.rounds()
        lora = json.loads((self.into / "adapter_config.json").read_text()) if self.adapter else {}
        manifest = Manifest(
            name=self.name if self.name != "bundle" else self.run.name,
            task=config.name, about=config.about, dataset=config.data.hub, run=self.run.name,
            created=datetime.now(UTC).isoformat(timespec="seconds"), version=own_version(), base=self.base,
            adapter=self.adapter is not None, started=self._goes_on_from_a_start(),
            kind=lora.get("peft_type", ""), rank=lora.get("r"), attaches=attaches(lora),
            prompt=self.prompt.id, refined_template=template is not None,
            retrieves=self.prompt.retrieval.k if self.prompt.retrieval else 0, switches=config.chat_template_kwargs,
            max_new_tokens=config.generation.max_new_tokens,
            stop=() if render.tokenizer.chat_template else (NEXT_TURN,),
            merged=MERGED if self.wanted.merged else None,
            lora_gguf=f"{config.name}-lora.gguf" if "lora" in self.wanted.gguf else None, ollama=self.wanted.ollama,
            test=outcome.best_test if outcome else None, seed_test=outcome.baseline_test if outcome else None,
            seen=len(self.run.outcomes()) - (outcome is not None),
            validation=rounds[-1].reward if rounds else first.reward, seed_validation=first.seed_reward,
            drift=outcome.drift_of_best if outcome else None, keep=outcome.keep if outcome else (),
            rounds=self._rounds(),
        )  # fmt: skip
        return manifest.model_copy(update={"notes": notes(manifest, self.into, qlora=config.lora.qlora)})

    def _goes_on_from_a_start(self) -> bool:
        """Whether the adapter, or one that it was trained on from, is the one that the task brought."""
        first, adapter = self.run.baseline(), best_pair(self.run).adapter
        start = first.start.adapter if first and first.start else None
        while adapter and adapter != start:
            adapter = read_training(self.run.adapter_folder(adapter)).parent
        return adapter is not None

    def _rounds(self) -> tuple[RoundExcerpt, ...]:
        return tuple(_excerpt(row) for row in self.run.rounds())


def _excerpt(row: Round) -> RoundExcerpt:
    verdict = row.verdict
    return RoundExcerpt(
        number=row.number, action=row.decision.move.action, reason=without_folders(row.decision.reason),
        note=without_folders(row.trial.note),
        kept=verdict.kept, verdict=verdict.reason, before=verdict.before, after=verdict.after,
        p_value=verdict.p_value, reward=row.reward,
    )  # fmt: skip
