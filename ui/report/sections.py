"""The rounds that a report shows in full: what was observed, what was trained, how the prompt changed."""

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple, get_args

from agent.counting import plural
from agent.records.edits import Critique
from agent.records.examples import Candidate, TextPart
from agent.records.rounds import Baseline, Proposal, Round, standing_rounds
from agent.records.signal import Need, Outlook
from agent.records.training import Training, read_training
from memory.run.folder import RunFolder
from ui.report.diff import PromptDiff, compare, unified
from ui.report.signal import numbers_not_shown, outlooks
from ui.wording import LEVERS

LONG = 24  # up to so many rounds, all are shown in full
MOST_KEPT, LATEST = 30, 10  # shown in full of a longer run; its table has all of them, folded


class RoundSection(NamedTuple):
    """A round in full. `diff` and `unified` are there if its trial changed the prompt."""

    row: Round
    training: Training | None
    diff: PromptDiff | None
    unified: str

    @property
    def compared(self) -> list[Proposal]:
        """The proposals that were scored."""
        return [proposal for proposal in self.row.trial.proposals if proposal.merit is not None]

    @property
    def compared_on(self) -> str:
        """On how many rows the proposals were scored, as `on 12 rows`; nothing where the ledger did not count them."""
        rows = max((proposal.rows for proposal in self.compared), default=0)
        return f"on {plural(rows, 'row')}" if rows else ""

    @property
    def chosen(self) -> str | None:
        """The prompt of the proposal that was put on trial."""
        candidate = self.row.trial.candidate
        return candidate.prompt if candidate else None

    @property
    def refused(self) -> list[Proposal]:
        """The proposals that were not scored, for the reason in their note."""
        return [proposal for proposal in self.row.trial.proposals if proposal.merit is None]

    @property
    def other_numbers(self) -> dict[str, float]:
        """Numbers of the decision that are not among those observed."""
        return numbers_not_shown(self.row)

    @property
    def outlooks(self) -> dict[str, Outlook]:
        """What each lever promised, by its name."""
        return {LEVERS[action]: outlook for action, outlook in outlooks(self.row).items()}

    @property
    def chances(self) -> dict[Need, float]:
        """Of each need, the mean over the probed rows; empty where rules sorted them."""
        known = [example.chances for example in self.row.diagnosis.examples if example.chances]
        return {need: fmean(chances.get(need, 0.0) for chances in known) for need in get_args(Need)} if known else {}

    @property
    def critiques(self) -> dict[TextPart, list[Critique]]:
        """By the part of the prompt that they criticise."""
        found: dict[TextPart, list[Critique]] = {}
        for critique in self.row.trial.critiques:
            found.setdefault(critique.part, []).append(critique)
        return found


def read_sections(run: RunFolder, baseline: Baseline | None, rounds: Sequence[Round]) -> list[RoundSection]:
    """The rounds to be shown in full, in order, each beside the pair that stood before it.

    All of them; of a long run, those that made the present pair and the latest.
    """
    before = [baseline.best if baseline else None, *(row.best for row in rounds)]
    places: Sequence[int] = range(len(rounds))
    if len(rounds) > LONG:
        standing = standing_rounds(rounds)[-1]
        kept = [place for place in places if rounds[place].number in standing]
        places = sorted({*kept[-MOST_KEPT:], *places[-LATEST:]})
    return [read_section(run, rounds[place], before[place]) for place in places]


def read_section(run: RunFolder, row: Round, present: Candidate | None) -> RoundSection:
    """A round in full, beside the pair that stood before it."""
    trial = row.trial.candidate
    diff, text = None, ""
    if trial and present and trial.prompt != present.prompt:
        old, new = run.prompt(present.prompt), run.prompt(trial.prompt)
        diff, text = compare(old, new), unified(old, new)
    return RoundSection(row, _training(run, row), diff, text)


def _training(run: RunFolder, row: Round) -> Training | None:
    """The log of a LoRA round's training; None where the step failed, or its adapter was removed or is damaged."""
    trial = row.trial.candidate
    if row.decision.move.action != "train_lora" or trial is None or trial.adapter is None:
        return None
    try:
        return read_training(run.adapter_folder(trial.adapter))
    except (OSError, ValueError):
        return None
