"""Whether an LLM serves GEPA: two reflections on a built-in example, whose answers follow the prompt literally."""

from collections.abc import Callable, Iterable, Mapping

from agent.config.prompt import Editing
from agent.protocols import Chat, Scorers
from agent.records.actions import EditPrompt
from agent.records.evaluation import Evaluation, ExampleScore
from agent.records.examples import Candidate, Example, Prompt
from tools.editing.gepa_editor import GepaEditor

REFLECTIONS = 2


def reflect_on(
    prompt: Prompt,
    rows: Mapping[str, Example],
    scorers: Scorers,
    score: Callable[[Prompt, Example], ExampleScore],
    helps: Callable[[Prompt], bool],
    chat: Chat,
) -> tuple[bool, str]:
    """Whether a reflection brought a prompt that helps; and the system text it brought, or what failed.

    Raises:
        BadInput: the package gepa is not installed.
        LlmUnavailable: the LLM did not answer.
    """

    def evaluate(tried: Prompt, adapter: str | None, names: Iterable[str]) -> Evaluation:
        scores = tuple(score(tried, rows[name]) for name in names)
        return Evaluation(candidate=Candidate(prompt=tried.id, adapter=adapter), split="train", scores=scores)

    settings = Editing(critiques=REFLECTIONS, minibatch=len(rows))
    editor = GepaEditor(
        chat, scorers, settings, rows.__getitem__, evaluate, lambda *_: None, lambda *_: None
    )  # a prompt that gives answers away does not help
    proposed = editor.propose(
        prompt, evaluate(prompt, None, rows), list(rows.values()), EditPrompt(parts=("system",)), seed=0
    )
    best = next((edit.prompt for edit in proposed.edits if helps(edit.prompt)), None)
    if best is None:
        return False, " ".join(proposed.remarks) or "no rewritten text helps"
    return True, f'the system text became "{" ".join(best.system.split())[:200]}"'
