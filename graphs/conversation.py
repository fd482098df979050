"""What a user can say to a supervised run: each command answers with a record, which a face puts into words."""

from agent.errors import BadInput
from agent.policy.rules import Rules
from agent.records.actions import Action, EditPrompt, Rollback, Stop
from agent.records.base import Record
from agent.records.examples import Prompt
from agent.records.looks import PromptTried
from agent.records.rounds import Round
from graphs.approval import APPROVE, Question, Reject, instead
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

    def reject(self, why: str = "") -> Question | None:
        """Plan again in this round, without this lever; why is noted in the run's events."""
        question = self.question
        if question and question.decision.move.action == "stop":
            raise BadInput("Nothing else is proposed; /edit and /train ask for an action of your own, /quit leaves.")
        return self._session.go({"decisions": [Reject(message=why).model_dump()]})

    def edit(self, **settings: object) -> Question | None:
        """Rewrite the prompt next, whatever is planned, with these settings of `EditPrompt`."""
        return self._instead(EditPrompt(), **settings)

    def train(self, **settings: object) -> Question | None:
        """Train the weights next, with these settings of `TrainLora`; the others are as the rules would have them."""
        rules = Rules(self._session.services.spec.config)
        return self._instead(rules.training(self._session.state["signal"], self._folder.rounds()), **settings)

    def rollback(self, number: int) -> Question | None:
        """Back to the pair that stood after this round; 0: the baseline."""
        rounds = len(self._folder.rounds())
        if number >= rounds:
            most = f"/rollback takes 0 to {rounds - 1}" if rounds else "there is nothing to go back from"
            raise BadInput(f"There have been {rounds} rounds; {most}.")
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

    def _instead(self, action: Action, **settings: object) -> Question | None:
        return self._session.go(instead(action.action, **action.model_dump(mode="json", exclude={"action"}) | settings))
