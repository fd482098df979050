"""An LLM scripted by rules: plans, criticises, rewrites and judges, so that whole runs go against tests/llm/server.py.

It recognises a request by what it contains, and answers equal requests equally. `scripted_llm` is the rule to serve:
`serving(scripted_llm)`, or with exceptions: `serving(lambda request: NOT_JSON if … else scripted_llm(request))`.
"""

import argparse
import json
import re
import signal
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Literal, get_args

from agent.records.rounds import Role
from tests.llm.forms import Form, answered, forms_of
from tests.llm.server import LlmServer, Reply, Request, by_length, serving

Kind = Literal["plan", "judge", "step", "critique", "rewrite", "other"]

LEVERS = {"train_lora", "edit_prompt", "rollback", "stop"}
MARKS = {"grade", "better"}
ROLES: dict[Kind, Role] = {"plan": "planner", "judge": "judge"}
QUOTED = re.compile(r"<<<(.*?)>>>", re.S)
# Constraints of a step that speak of the text it writes, not to the model that will read it.
OF_THE_TEXT = re.compile(r"character|variable|demonstration|reference|tags|<<<|\bprompt\b|content is right", re.I)
DEMO = re.compile(r"<question>.*?</question>\s*<answer>.*?</answer>", re.S)


def scripted_llm(request: Request) -> Reply:
    """A sensible answer to any request of ours; tokens are counted by length."""
    return replace(PLAYS[kind_of(request)](request), usage=by_length)


def role_of(request: Request) -> Role:
    """Who asks; for `server.billed(1, 10, lambda request: role_of(request) == "planner")`."""
    return ROLES.get(kind_of(request), "editor")


def bills(server: LlmServer, price_in: float, price_out: float) -> dict[Role, float]:
    """The server's bill in USD by role, at prices per million tokens; of the roles that asked."""
    billed = {role: server.billed(price_in, price_out, partial(_asks, role)) for role in get_args(Role)}
    return {role: usd for role, usd in billed.items() if usd}


def _asks(role: Role, request: Request) -> bool:
    return role_of(request) == role


def kind_of(request: Request) -> Kind:
    """What is asked for, by the tools or schemas that are offered, and else by the system text."""
    forms, system = forms_of(request), request.system
    if LEVERS & forms.keys():
        return "plan"
    if any(MARKS & form.keys() for form in forms.values()):
        return "judge"
    if "<IMPROVED_VARIABLE>" in system:
        return "step"
    if re.search(r"gradient \(feedback\) engine|f[ae]ll short|criti", system):
        return "critique"
    return "rewrite" if re.search(r"re(word|writ|phras)|other words|clearer", QUOTED.sub("", system), re.I) else "other"


# --- planning ------------------------------------------------------------------------------------


def _plan(request: Request) -> Reply:
    """First a look or two, where looks are offered; then the rules' own lever, but weights where an edit has just
    failed; of the levers that are offered.
    """
    forms, message = forms_of(request), request.user
    if look := _look(request):
        return look
    seen = _signal(message)
    style, content = _percent("style", message), _percent("content", message)
    rules = (re.findall(r"Rules would: (\w+)", message) or ["edit_prompt" if style >= 10 else "train_lora"])[-1]
    rows = re.findall(r"Rules would: train_lora on (original|refined) rows", message)
    failed = bool(seen.get("refined")) and seen.get("edit", {}).get("fruitless", 0) > 0
    lever = "train_lora" if rules == "edit_prompt" and failed and content else rules
    lever = next(name for name in (lever, rules, "edit_prompt", "train_lora", *forms) if name in forms)
    wanted = {
        "reason": f"Reward is {seen.get('reward', 0):.2f}; {style}% of the rows lack style and {content}% content.",
        "rows": rows[-1] if rows else "refined" if seen.get("refined") else "original",
        "failures": "style" if style > content else "any",
        "to_round": 0,
    }
    return answered(request, lever, wanted)


def _look(request: Request) -> Reply | None:
    """Train rows are scored first; where they say that content is lacking, a question of one's own is tried."""
    forms, looked = forms_of(request), request.user.partition("What you looked at in this round:")[2]
    if "evaluate" in forms and "1. " not in looked:
        return answered(request, "evaluate", {"reason": "Do train rows fail alike?", "split": "train", "rows": 4})
    lacks_content = re.search(r"; [1-9]\d* fail: (?!0 lack content alone, \d+ style alone, 0 both)", looked)
    if "try_prompt" in forms and lacks_content and "2. " not in looked:
        wanted = {"reason": "Does it know anything at all?", "question": "What do you know?"}
        return answered(request, "try_prompt", wanted)
    return None


def _signal(message: str) -> dict[str, Any]:
    """The signal, which stands in the message as JSON."""
    for brace in re.finditer("{", message):
        with suppress(ValueError):
            found = json.JSONDecoder().raw_decode(message, brace.start())[0]
            if "reward" in found:
                return dict(found)
    return {}


def _percent(need: str, message: str) -> int:
    return int((re.findall(rf"lacking {need} (\d+)%", message) or ["0"])[-1])


# --- TextGrad ------------------------------------------------------------------------------------


def _critique(request: Request) -> Reply:
    """What the scorers wanted, as advice on each part asked about; not what the answer was instead: that is data."""
    faults = re.findall(
        r"^(?:Faults?: *|What its scorers say:\n(?:<<<\s)?)(.+)$", f"{request.system}\n{request.user}", re.M
    )
    wanted = faults[-1].split(", but")[0].strip(" .>") if faults else "The answer must be what was asked for"
    advice = f"The prompt does not make this plain: {wanted}. It should say so in one sentence."
    parts = re.findall(r"^Give feedback on: (.+)$", request.user, re.M)
    sections = [f"<{part}>{advice}</{part}>" for part in re.findall(r"\w+", parts[-1])] if parts else [advice]
    return Reply("\n".join(sections))


def _step(request: Request) -> Reply:
    """The variable, improved as its role and the constraints ask."""
    role, variable = _between(request.user, "ROLE").lower(), _between(request.user, "VARIABLE")
    improve = next((improved for word, improved in VARIABLES.items() if word in role), _system_text)
    return Reply(f"<IMPROVED_VARIABLE>{improve(variable, _wanted(request), request)}</IMPROVED_VARIABLE>")


def _wanted(request: Request) -> list[str]:
    """The sentences among the constraints that belong in the prompt: what the answers are judged by."""
    constraints = _between(request.user, "CONSTRAINTS")
    judged = re.search(r"judged by this: (.+)", constraints)
    lines = (
        re.split(r"(?<=\.) (?=[A-Z])", judged[1]) if judged else re.split(r"^Constraint \d+: ", constraints, flags=re.M)
    )
    return [line.strip() for line in lines if line.strip() and not OF_THE_TEXT.search(line)]


def _system_text(variable: str, wanted: list[str], request: Request) -> str:
    """With what is wanted and not said yet; where all is said, with a word on brevity."""
    missing = [sentence for sentence in wanted if sentence not in variable]
    brief = ("Answer briefly.", "Give what is asked for and nothing else.", "Be exact.")
    added = missing or [sentence for sentence in brief if sentence not in variable][:1]
    return " ".join([*added, variable] if _either(request) else [variable, *added]).strip()


def _demonstrations(variable: str, wanted: list[str], request: Request) -> str:
    """The last one first, and one more example below the limit: what is nearest to the question counts."""
    shown, examples = DEMO.findall(variable), DEMO.findall(_between(request.user, "EXAMPLES"))
    left = int((re.findall(r"At most (\d+) demonstrations", request.user) or ["4"])[-1]) - len(shown)
    new = [demo for demo in examples if demo not in shown][: min(1, max(0, left))]
    return "\n\n".join([*new, *shown[1:], *shown[:1]]) if shown else variable


def _template(variable: str, wanted: list[str], request: Request) -> str:
    """What is wanted, right after the question."""
    missing = [sentence for sentence in wanted if sentence not in variable] or ["Answer briefly."]
    return f"{variable}\n{missing[0]}"


def _question(variable: str, wanted: list[str], request: Request) -> str:
    """The same question, with what is wanted of the answer said once more."""
    plain = variable.strip()
    asked = f"Question: {plain}" if _either(request) else f"{plain} Go through it part by part."
    return " ".join([asked, *wanted[:1]])


VARIABLES: dict[str, Callable[[str, list[str], Request], str]] = {
    "system": _system_text, "demonstration": _demonstrations, "template": _template, "question": _question,
}  # fmt: skip


def _rewrite(request: Request) -> Reply:
    """The quoted question in other words, in the form that is offered or as text."""
    quoted = QUOTED.findall(request.user) or [request.user]
    text = _question(quoted[0], [], request)
    return answered(request, next(iter(forms_of(request))), {"question": text}) if forms_of(request) else Reply(text)


# --- judging -------------------------------------------------------------------------------------


def _judge(request: Request) -> Reply:
    """A grade, or the better of two, by how much of the rubric's quoted words and of the reference an answer has."""
    name, form = next((name, form) for name, form in forms_of(request).items() if MARKS & form.keys())
    answers = [text for label, text in _quoted(request.user) if not re.search("question|reference|rubric", label, re.I)]
    marks = [_mark(text, request) for text in answers] or [0.0]
    wanted: dict[str, Any] = {"reason": f"It has {marks[0]:.0%} of what the rubric names."}
    if "better" in form:
        wanted["better"] = _better([*answers, "", ""], [*marks, 0.0, 0.0], form["better"].get("enum", [1, 2]))
    else:
        low, high = _scale(form["grade"], request.system + request.user)
        wanted["grade"] = low + round(marks[-1] * (high - low))
    return answered(request, name, wanted)


def _quoted(text: str) -> list[tuple[str, str]]:
    """What stands between <<< and >>>, with its label."""
    return re.findall(r"([^\n<>]*):\s*<<<(.*?)>>>", text, re.S)


def _mark(text: str, request: Request) -> float:
    """In [0, 1]: the share of what is looked for that stands in the text; an empty one has nothing."""
    asked = request.system.split("JSON schema:")[0]  # whose words are no rubric
    rubric = QUOTED.sub("", asked + request.user)
    looked_for = re.findall(r'"([^"\n]{2,60})"', rubric)
    for label, quoted in _quoted(request.user):
        looked_for += quoted.split() if "reference" in label.lower() else []
    found = [words.strip().lower() in text.lower() for words in looked_for]
    return float(bool(text.strip())) * (sum(found) / len(found) if found else 1.0)


def _better(answers: list[str], marks: list[float], names: list[Any]) -> Any:
    """Whatever the order: the higher mark, else a draw where there is one, else the longer text."""
    first, second, *draw = names
    if marks[0] != marks[1]:
        return first if marks[0] > marks[1] else second
    return draw[0] if draw else first if len(answers[0]) >= len(answers[1]) else second


def _scale(form: Form, text: str) -> tuple[int, int]:
    bounds = re.search(r"\b(\d+) (?:to|and) (\d+)\b", text)
    low, high = (int(bounds[1]), int(bounds[2])) if bounds else (1, 5)
    return int(form.get("minimum", low)), int(form.get("maximum", high))


# --- anything else -------------------------------------------------------------------------------


def _other(request: Request) -> Reply:
    """Whatever form is offered, filled; else a sensible sentence."""
    name = next(iter(forms_of(request)), None)
    return Reply("Say plainly what is wanted, and show it once.") if name is None else answered(request, name, {})


PLAYS: dict[Kind, Callable[[Request], Reply]] = {
    "plan": _plan, "judge": _judge, "step": _step, "critique": _critique, "rewrite": _rewrite, "other": _other,
}  # fmt: skip


def _between(text: str, tag: str) -> str:
    found = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.S)
    return found[1].strip() if found else ""


def _either(request: Request) -> bool:
    """A choice that different requests make differently, and equal ones alike."""
    return bool(zlib.crc32(request.text.encode()) & 1)


# --- for a person --------------------------------------------------------------------------------


def main() -> None:
    """Serve the scripted LLM until it is stopped; then print what was asked and what it cost."""
    parser = argparse.ArgumentParser(prog="python -m tests.llm.server", description=main.__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before every answer")
    parser.add_argument("--price", type=float, nargs=2, default=(1.0, 10.0), help="USD per million tokens, in and out")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job ignores
    with serving(lambda request: replace(scripted_llm(request), delay=arguments.delay), arguments.port) as server:
        print(f"{server.url}  (--set llm.base_url={server.url})", flush=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            pass
    into, out = server.reported
    print(f"requests {len(server.requests)}, tokens in {into}, out {out}, USD {server.billed(*arguments.price):.6f}")
    for role, usd in bills(server, *arguments.price).items():
        print(f"  {role}: USD {usd:.6f}")


if __name__ == "__main__":
    main()
