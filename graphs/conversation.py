"""What a user can say to a supervised run: each command answers with a record, which a face puts into words."""

from agent.errors import BadInput
from agent.policy.rules import Rules
from agent.records.actions import Action, EditPrompt, Rollback, Stop
from agent.records.base import Record
from agent.records.examples import Prompt
from agent.records.looks import PromptTried
from agent.records.rounds import Round
from graphs.approval import APPROVE, REJECT, Question, instead
from graphs.looking import try_prompt
from graphs.session import Session


class PromptChange(Record):
    """The seed prompt, and the best one so far."""

    seed: Prompt
    best: Prompt


class Conversation:
    """The commands of a chat, for any face. Every action command runs one round and returns the next question.

    None in place of a question: the run has finished. All commands raise BadInput where they cannot be followed.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._folder = session.services.folder

    @property
    def question(self) -> Question | None:
        """What the run waits with: the next plan, its reason and its cost."""
        return self._session.question

    def approve(self) -> Question | None:
        """Do what is planned."""
        return self._session.go(APPROVE)

    def reject(self) -> Question | None:
        """Plan again in this round, without this lever."""
        question = self.question
        if question and question.decision.move.action == "stop":
            raise BadInput("Nothing else is proposed; /edit and /train ask for an action of your own, /quit leaves.")
        return self._session.go(REJECT)

    def edit(self) -> Question | None:
        """Rewrite the prompt next, whatever is planned."""
        return self._instead(EditPrompt())

    def train(self) -> Question | None:
        """Train the weights next, with the settings that the rules would take."""
        rules = Rules(self._session.services.spec.config)
        return self._instead(rules.training(self._session.state["signal"], self._folder.rounds()))

    def rollback(self, number: int) -> Question | None:
        """Back to the pair that stood after this round; 0: the baseline."""
        if number > len(self._folder.rounds()):
            raise BadInput(f"There have been {len(self._folder.rounds())} rounds; /rollback takes 0 to that.")
        return self._instead(Rollback(to_round=number))

    def finish(self) -> Question | None:
        """End the run: open the test rows and write the report."""
        return self._instead(Stop())

    def why(self) -> Round:
        """The last round, with the reasons and numbers of its decision."""
        rounds = self._folder.rounds()
        if not rounds:
            raise BadInput("No round has been done yet; /plan shows the first.")
        return rounds[-1]

    def diff(self) -> PromptChange:
        """What the best prompt says that the seed prompt did not."""
        best = self._folder.prompt(self._session.best.prompt)
        return PromptChange(seed=self._session.services.spec.config.prompt.prompt(), best=best)

    def try_prompt(self, question: str) -> PromptTried:
        """Ask the best pair something."""
        if not question:
            raise BadInput("/try takes the question to ask, as in: /try Who is the mayor?")
        return try_prompt(question, self._session.best, self._session.services)

    def _instead(self, action: Action) -> Question | None:
        settings = action.model_dump(mode="json", exclude={"action"})
        return self._session.go(instead(action.action, **settings))
