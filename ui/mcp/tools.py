"""What each tool does."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from agent.errors import BadInput
from agent.records.actions import Action, EditPrompt, Rollback, TrainLora
from agent.records.base import Record
from agent.records.limits import OtherLimits
from agent.records.looks import Look
from eval.drafts.records import DraftOptions
from graphs.approval import APPROVE
from graphs.control.client import status_of
from graphs.control.steering import RunStatus, Steering
from memory.run.folder import RunFolder
from ui import wording
from ui.mcp import calls, views
from ui.mcp.runs import Runs
from ui.mcp.talk import Asking, Talk, in_thread
from ui.mcp.views import DraftView, Explained, ReportPaths, RunLine, RunList, RunView

Call = TypeVar("Call", bound=Record)
Do = Callable[[Call, Talk], Awaitable[Record]]


class Tools:
    """The tools' work on the runs under one folder."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    # --- tasks and runs --------------------------------------------------------------------------------

    async def draft_task(self, call: calls.DraftTask, talk: Talk) -> DraftView:
        from graphs.drafting import TRIED, draft_task

        into = Path(call.into).expanduser() if call.into else None
        options = DraftOptions.model_validate(call.model_dump(include=set(DraftOptions.model_fields))).named_for(into)
        tried = TRIED if call.try_rows else 0
        draft = await in_thread(lambda: draft_task(Path(call.rows).expanduser(), options, tried=tried))
        written = str(draft.write(into)) if into else ""
        shared = draft.model_dump(mode="json", include=set(DraftView.model_fields))
        return DraftView.model_validate(shared | {"written": written})

    async def start_run(self, call: calls.StartRun, talk: Talk) -> RunView:
        from graphs.context import new_run

        task = Path(call.task).expanduser()
        folder = await in_thread(lambda: new_run(task, call.overrides, self._runs.root, call.name or None))
        steering = await in_thread(self._runs.steering, folder)
        return await self._view(folder, steering, await in_thread(steering.status), call.wait, talk)

    async def list_runs(self, call: calls.ListRuns, talk: Talk) -> RunList:
        found = await in_thread(lambda: [status_of(run) for run in self._runs.all()])
        shared = (status.model_dump(include=set(RunLine.model_fields)) for status in found)
        return RunList(runs=tuple(map(RunLine.model_validate, shared)))

    async def status(self, call: calls.Status, talk: Talk) -> RunView:
        folder = self._runs.find(call.run)
        status = await in_thread(status_of, folder)
        if status.condition != "working" or not call.wait or not status.pid:
            return views.view(folder, status, len(folder.rounds()))
        steering = await in_thread(self._runs.steering, folder)
        return await self._view(folder, steering, status, call.wait, talk)

    # --- rounds ----------------------------------------------------------------------------------------

    async def train_lora(self, call: Record, talk: Talk) -> RunView:
        folder, steering, status = await self._open(call)
        action: Action = calls.record_of(call, TrainLora)
        if status.question:  # a yes is to just this, whatever may be planned by then
            action = status.question.completed(action)
        what = f"Train the weights in run {folder.name}: {views.training(action, status.question)}"
        await self._approval("train_lora", what, steering, status, talk)
        return await self._act(folder, steering, action, call, talk)

    async def edit_prompt(self, call: Record, talk: Talk) -> RunView:
        folder, steering, _ = await self._open(call)
        return await self._act(folder, steering, calls.record_of(call, EditPrompt), call, talk)

    async def rollback(self, call: Record, talk: Talk) -> RunView:
        folder, steering, _ = await self._open(call)
        return await self._act(folder, steering, calls.record_of(call, Rollback), call, talk)

    async def continue_run(self, call: calls.ContinueRun, talk: Talk) -> RunView:
        folder, steering, status = await self._open(call)
        since = len(folder.rounds())
        if question := status.question:
            await self._agreed(call, steering, status, talk)
            status = await in_thread(steering.answer, APPROVE, question.number)
            if call.rounds > 1:
                status = await in_thread(steering.go_on, call.rounds - 1)
        elif status.condition == "paused":  # by a person, or since its process was killed in an action
            why = f" {status.trouble}" if status.trouble else ""
            what = f"Run {folder.name} is paused.{why} Go on with it?"
            await self._approval("continue_run", what, steering, status, talk)
            status = await in_thread(steering.go_on)
        return await self._view(folder, steering, status, call.wait, talk, since)

    async def _agreed(self, call: calls.ContinueRun, steering: Steering, status: RunStatus, talk: Talk) -> None:
        """A yes to the plan that waits, where it needs one. Raises BadInput: it is the end, or was not agreed to."""
        assert status.question is not None
        plan, move = views.planned(status.question), status.question.decision.move
        if plan.final:
            raise BadInput(f"What is planned is the end of the run: {plan.reason} Call `finish`, or another action.")
        if call.rounds > 1 or plan.action == "train_lora":
            more = f", then what is planned in {call.rounds - 1} more rounds" if call.rounds > 1 else ""
            what = f"Go on with run {status.run}: {move}{more}. {plan.reason} Cost: {plan.cost}."
            await self._approval("continue_run", what, steering, status, talk)

    async def cancel_step(self, call: calls.CancelStep, talk: Talk) -> RunView:
        folder = self._runs.find(call.run)
        steering = await in_thread(self._runs.steering, folder)
        since = len(folder.rounds())
        status = await in_thread(steering.cancel_step)
        return await self._view(folder, steering, status, call.wait, talk, since)

    async def extend(self, call: calls.Extend, talk: Talk) -> RunView:
        folder = self._runs.find(call.run)
        if not call.named:
            raise BadInput(f"extend: name a limit: {', '.join(OtherLimits.model_fields)}")
        limits = ", ".join(f"{name} {value:g}" for name, value in call.named.items())
        again = " It has finished, and is opened again." if folder.outcome() else ""
        await talk.approval("extend", f"Set the limits of run {folder.name}: {limits}.{again}")
        if folder.outcome() and not again:
            raise BadInput(f"Run {folder.name} has finished while the user was asked. {ASK_AGAIN}")
        steering = await in_thread(self._runs.extended, folder, call.named)
        return await self._view(folder, steering, await in_thread(steering.status), call.wait, talk)

    async def finish(self, call: calls.Finish, talk: Talk) -> RunView:
        folder, steering, status = await self._open(call)
        reached = f" It is at {wording.number(status.reward)} on validation rows."
        what = f"End run {folder.name} for good: its test rows are opened, and the report is written.{reached}"
        await self._approval("finish", what, steering, status, talk)
        since = len(folder.rounds())
        status = await in_thread(steering.finish)
        return await self._view(folder, steering, status, call.wait, talk, since)

    # --- looking ---------------------------------------------------------------------------------------

    def looks(self, record: type[Record]) -> "Do[Record]":
        """What a look's tool does."""

        async def look(call: Record, talk: Talk) -> Record:
            _, steering, status = await self._open(call)
            if status.condition == "working":
                raise BadInput("The run is at work; look once it waits: `status` with `wait` tells when.")
            asked: Look = calls.record_of(call, record)  # type: ignore[assignment]
            return await in_thread(steering.look, asked)

        return look

    async def explain_round(self, call: calls.ExplainRound, talk: Talk) -> Explained:
        folder = self._runs.find(call.run)
        rounds = folder.rounds()
        number = len(rounds) if call.round is None else call.round
        if not rounds:
            raise BadInput(f"No round of run {folder.name} has been done yet: `status` shows what is planned first.")
        if not 1 <= number <= len(rounds):
            raise BadInput(f"There is no round {number} in run {folder.name}: there have been {len(rounds)}.")
        return views.explained(rounds[number - 1])

    async def report(self, call: calls.Report, talk: Talk) -> ReportPaths:
        folder = self._runs.find(call.run)
        outcome, rounds, baseline = folder.outcome(), folder.rounds(), folder.baseline()
        last = outcome or (rounds[-1] if rounds else baseline)
        if last is None or not folder.report_html.exists():
            raise BadInput(f"Run {folder.name} has no report yet; it is written with the first measurement.")
        best = last.best
        return ReportPaths(
            html=str(folder.report_html),
            markdown=str(folder.report_html.with_suffix(".md")),
            prompt=folder.prompt(best.prompt),
            adapter=str(folder.adapter_folder(best.adapter)) if best.adapter else None,
        )

    # --- what they share -------------------------------------------------------------------------------

    async def _open(self, call: Record) -> tuple[RunFolder, Steering, RunStatus]:
        """The run of a call, worked on; the call's own action needs it to wait."""
        folder = self._runs.find(getattr(call, "run", ""))
        steering = await in_thread(self._runs.steering, folder)
        return folder, steering, await in_thread(steering.status)

    async def _approval(self, tool: Asking, what: str, steering: Steering, seen: RunStatus, talk: Talk) -> None:
        """See `Talk.approval`. BadInput, too, where the run that waited has moved on while a person thought."""
        await talk.approval(tool, what, _stand(seen))
        if seen.condition != "working" and _stand(await in_thread(steering.status)) != _stand(seen):
            raise BadInput(f"Run {seen.run} has moved on while the user was asked. {ASK_AGAIN}")

    async def _act(self, folder: RunFolder, steering: Steering, action: Record, call: Record, talk: Talk) -> RunView:
        since = len(folder.rounds())
        move: Action = action  # type: ignore[assignment]
        status = await in_thread(steering.act, move)
        return await self._view(folder, steering, status, getattr(call, "wait", 0.0), talk, since)

    async def _view(
        self,
        folder: RunFolder,
        steering: Steering,
        now: RunStatus,
        wait: float,
        talk: Talk,
        since: int | None = None,
    ) -> RunView:
        """The run once it waits again, or the time is over. Raises BadInput with the trouble that stopped it."""
        before = len(folder.rounds()) if since is None else since
        status = await talk.settled(steering, now, wait)
        if status.condition == "stopped" and status.trouble:
            raise BadInput(f"Run {folder.name} has stopped: {status.trouble}")
        return views.view(folder, status, before)


ASK_AGAIN = "Nothing was done: look at `status`, and ask again."


def _stand(status: RunStatus) -> list[object]:
    """What a yes is about, as JSON values: the plan that waits. Of a run at work, what is asked comes after it."""
    if status.condition == "working":
        return []
    return [status.rounds, status.condition, status.question.model_dump(mode="json") if status.question else None]
