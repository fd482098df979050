"""Things that people say to a run: which tool an LLM chooses for them, and whether its answers hold.

    python -m bench.studies.chat_requests --model MODEL --base-url http://127.0.0.1:8123/v1

Each request stands alone, in a situation taken from a run of the valley; nothing is trained. Docs: docs/chat.md.
"""

import argparse
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from agent.config.llm import Llm
from agent.errors import LlmUnavailable
from graphs.conversation.agent import chat_agent
from memory.run.folder import RunFolder
from tools.llm.budget import LlmBudget, UnsavedCallLog
from tools.llm.client import LlmChat
from tools.llm.retry import ServerRetry

FACTS = """\
valley-1: reward 0.00 → 0.47 (target 0.95); 1 round of 6 done; waits for your answer.
  1 min 12 s, 24k forward tokens used.
round 1: rewrite the prompt; reward 0.00 → 0.47, kept
Planned now, and waiting for their yes or no:
Round 2: train 3 epochs on 48 rows in the wanted form, about 40 s; I expect +0.31 ± 0.12 merit
  why: 53% of the rows lack content: the model does not know the answers."""
FOUND = {
    "/why 1": "Round 1, edit_prompt, decided by rules.\n  two train rows retrieved for each question\n"
    "  reward 0.00 → 0.47, kept: the reward rose (p 0.004)",
    "/failures": "17 of 32 rows fail; of all rows 53% lack content alone, 0% style alone, 0% both",
    "/try Who is the mayor of Tallisk?": "  base, seed prompt  I do not know.\n  current (round 1)  ANSWER: Gallune",
}


class Request(NamedTuple):
    """What is said, and what would be right: commands, as a pattern, or words that its answer must have."""

    said: str
    right: str
    answers: tuple[str, ...] = ()


REQUESTS = (
    Request("That sounds sensible, please do what you suggest.", "/approve"),
    Request("Hm, I'd rather not train yet, it takes too long. Find something else.", "/(reject|edit).*"),
    Request("Could you train it, but only for a single epoch?", r"/train epochs=1( rows=\w+)?"),
    Request("Tell the model to keep its answers under ten words.", "/edit .*"),
    Request("That last change was no good, put things back as they were.", "/undo|/rollback 0"),
    Request("How well does it do right now?", "/status", ("0.47",)),
    Request("What did you do in the first round, and was it kept?", "/why 1", ("0.47", "kept")),
    Request("What would it say if I asked who the mayor of Tallisk is?", "/try .*"),
    Request("I will be happy with 90 percent.", r"/set target=0\.9"),
    Request("We are done here, wrap this up and give me the final numbers.", "/finish"),
)


# Asked once each, after all else was settled: no word of ours was chosen with an eye on them.
FRESH = (
    Request("Alright, that plan works for me.", "/approve"),
    Request("No thanks, training that long is not worth it. What else is there?", "/(reject|edit).*"),
    Request("Please go over the rows twice in training.", r"/train epochs=2( rows=\w+)?"),
    Request("Make it always begin with the word Answer.", "/edit .*"),
    Request("Bring back the version from before we changed anything.", "/undo|/rollback 0"),
    Request("How much time have we used up so far?", "/status", ("1 min 12",)),
    Request("Why did you keep the first change?", "/why 1", ("0.004",)),
    Request("Ask it who runs the bakery in Tallisk.", "/try .*"),
    Request("It may take up to ten rounds if it needs them.", "/set rounds=10"),
    Request("Which kinds of mistakes does it still make?", "/failures"),
)


class Desk:
    """Notes commands; answers looks from `FOUND`."""

    def __init__(self) -> None:
        self.commands = list[str]()

    def facts(self) -> str:
        return FACTS

    def carried_out(self) -> Sequence[str]:
        return ["/edit"]

    def perform(self, command: str) -> str:
        self.commands.append(command)
        return FACTS if command == "/status" else FOUND.get(command, "done")

    def weigh(self, command: str) -> str:
        costly = command.startswith(("/train", "/finish", "/approve"))
        self.commands += [command] if costly else []
        return f"To be done: {command}" if costly else ""


def main() -> None:
    """Ask them all, and print a line of a table for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--base-url")
    parser.add_argument("--way", help="of structured output; default: each in turn")
    parser.add_argument("--timeout", type=float, default=900)
    options = parser.parse_args()
    settings = Llm(
        model=options.model, base_url=options.base_url, way=options.way, timeout=options.timeout, patience=0,
        max_tokens=200,
    )  # fmt: skip
    print("| request | what the LLM chose | what was said | right | seconds |\n|---|---|---|---|---|")
    right = [sum(ask(request, settings) for request in requests) for requests in (REQUESTS, FRESH)]
    print(f"\n{right[0]} of {len(REQUESTS)} right, and of the fresh ones {right[1]} of {len(FRESH)}")


def ask(request: Request, settings: Llm) -> bool:
    """One request, in a conversation of its own."""
    desk, began, said = Desk(), time.monotonic(), list[str]()
    chat = LlmChat(settings, "chat", LlmBudget(UnsavedCallLog()), ServerRetry(0, 1, lambda _: None))
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder.create(Path(place), "valley", "name: valley", Path(place), "0" * 12)
        with chat_agent(folder, chat, desk) as agent:
            try:
                said = [event.text for event in agent.hear(request.said) if event.kind in ("answer", "left out")]
            except LlmUnavailable as error:
                said = [f"(failed: {error})"]
    text = " ".join(" ".join(said).split())
    chosen = any(re.fullmatch(request.right, command) for command in desk.commands)
    good = chosen or bool(request.answers and all(word in text for word in request.answers))
    seconds = time.monotonic() - began
    shown = ", ".join(f"`{command}`" for command in desk.commands) or "answer"
    print(f"| {request.said} | {shown} | {text[:160]} | {'yes' if good else 'no'} | {seconds:.0f} |", flush=True)
    return good


if __name__ == "__main__":
    main()
