"""A chat template that carries a whole refined prompt: whoever sends a bare question gets what the run measured.

It is Jinja code in front of the model's own template. The code puts system text, demonstrations and question template
around the messages it is given; messages that begin with a system message, or with the demonstrations, are rendered as
they are, so that `nesylora.messages` works with the same server. A `developer` is a `system`, as for `nesylora serve`.
"""

import copy
import json
import re

from jinja2.exceptions import TemplateError

from agent.records.examples import Example, Prompt, Turn
from tools.model.chat_template import Message, Renderer

PLACE = "{question}"
DEVELOPER = (  # OpenAI's newer name of the system's role; few templates know it
    "{%- if messages and messages[0]['role'] == 'developer' %}\n"
    "{%- set messages = [{'role': 'system', 'content': messages[0]['content']}] + messages[1:] %}\n"
    "{%- endif %}\n"
)
TURNS = (Turn(role="user", content="One?"), Turn(role="assistant", content="It is {1}."))
TRIED = (  # what a question may hold that a template could stumble on
    Example(name="user:1", question="Which?", answer=""),
    Example(name="user:2", question="\"a\" 'b' {question} {{ c }} {% d %}\n\ne\\n", answer=""),
    Example(name="user:3", question="And then?", answer="", turns=TURNS),
)


def refined_template(render: Renderer, prompt: Prompt) -> str | None:
    """The model's chat template with the prompt's fixed parts: all but what it retrieves.

    Returns:
        None where no template renders the same token ids as the run did.
    """
    prompt = prompt.model_copy(update={"retrieval": None})
    own = _own_template(render)
    text = None if own is None else _preamble(render, prompt) + own
    return text if text is not None and renders_alike(render, prompt, text) else None


def renders_alike(render: Renderer, prompt: Prompt, template: str) -> bool:
    """Whether bare questions, and messages that hold the prompt already, get the ids that the run measured."""
    tokenizer = copy.copy(render.tokenizer)
    tokenizer.chat_template = template
    for example in TRIED:
        ours = render.prompt_ids(prompt, example)
        bare = [*(turn.model_dump() for turn in example.turns), {"role": "user", "content": example.question}]
        for messages in (bare, Renderer.messages(prompt, example)):
            try:
                text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            except TemplateError:
                return False
            if tokenizer(text, add_special_tokens=False)["input_ids"] != ours:
                return False
    return True


# --- in front of the model's template ---------------------------------------------------------------


def _preamble(render: Renderer, prompt: Prompt) -> str:
    """Jinja code that prints nothing: it sets the template's switches, and puts the prompt around `messages`."""
    switches = "".join(
        f"{{%- if {name} is not defined %}}{{%- set {name} = {_literal(value)} %}}{{%- endif %}}\n"
        for name, value in render.switches.items()
    )
    merges = not render.takes_system
    around = _around(prompt, merges) if _says_anything(prompt) or merges else ""
    return f"{switches}{DEVELOPER}{around}{{{{- '' }}}}"


def _says_anything(prompt: Prompt) -> bool:
    return bool(prompt.system or prompt.demos or prompt.template != PLACE)


def _around(prompt: Prompt, merges: bool) -> str:
    """Puts the prompt around `messages`.

    Args:
        merges: the template knows no system message: its text goes in front of the first turn.
    """
    fixed = Renderer.messages(prompt, Example(name="user:1", question="", answer=""))[:-1]
    system, demos = (fixed[0]["content"] if prompt.system else ""), fixed[bool(prompt.system) :]
    lead = ""
    if system and merges and demos:
        demos[0] = _message("user", f"{system}\n\n{demos[0]['content']}")
    elif system and merges:
        lead = f"({_literal(system)} + '\\n\\n' if loop.first else '') + "
    elif system:
        demos = [_message("system", system), *demos]
    asked = " + message['content'] + ".join(_literal(part) for part in prompt.template.split(PLACE))
    whole = not lead and prompt.template == PLACE
    lines = [
        f"if messages and not ({_holds_it_already(prompt)})",
        *([f"set messages = {_literals(demos)} + messages"] if whole else _turn_by_turn(demos, lead, asked)),
        "endif",
        *(_merging() if merges else ()),
    ]
    return "".join(f"{{%- {line} %}}\n" for line in lines)


def _turn_by_turn(demos: list[Message], lead: str, asked: str) -> list[str]:
    """The messages one by one: the last of the user is put into the question template.

    Args:
        lead: the system text, where it stands in front of the first turn.
        asked: the expression of that template.
    """
    return [
        f"set refined = namespace(messages={_literals(demos)}, last=-1)",
        "for message in messages",
        "if message['role'] == 'user'",
        "set refined.last = loop.index0",
        "endif",
        "endfor",
        "for message in messages",
        "if loop.index0 == refined.last and message['content'] is string",
        f"set refined.messages = refined.messages + [{{'role': 'user', 'content': {lead}{asked}}}]",
        *_first_turn(lead),
        "else",
        "set refined.messages = refined.messages + [message]",
        "endif",
        "endfor",
        "set messages = refined.messages",
    ]


def _first_turn(lead: str) -> list[str]:
    """Where an earlier turn comes first, the system text stands in front of that."""
    if not lead:
        return []
    merged = f"{{'role': message['role'], 'content': {lead}message['content']}}"
    return [
        "elif loop.first and message['content'] is string",
        f"set refined.messages = refined.messages + [{merged}]",
    ]


def _merging() -> list[str]:
    """A client's own system message, put in front of the first turn, as the run would have put it."""
    merged = "{'role': messages[1]['role'], 'content': messages[0]['content'] + '\\n\\n' + messages[1]['content']}"
    return [
        "if messages | length > 1 and messages[0]['role'] == 'system'",
        f"set messages = [{merged}] + messages[2:]",
        "endif",
    ]


def _holds_it_already(prompt: Prompt) -> str:
    """The condition that messages are to be rendered as they are."""
    own = "messages[0]['role'] == 'system'"
    if prompt.system:
        return own
    if prompt.demos:
        return f"{own} or messages[0]['content'] == {_literal(prompt.ask(prompt.demos[0].question))}"
    last = "messages[messages | length - 1]['content']"
    before, _, after = prompt.template.partition(PLACE)
    ends = [f"{last} is string"]
    ends += [f"{last}.startswith({_literal(before)})"] if before else []
    ends += [f"{last}.endswith({_literal(after)})"] if after else []
    return f"{own} or ({' and '.join(ends)})"


def _literals(messages: list[Message]) -> str:
    pairs = (f"{{'role': {_literal(m['role'])}, 'content': {_literal(m['content'])}}}" for m in messages)
    return f"[{', '.join(pairs)}]"


def _literal(value: object) -> str:
    """A value as Jinja writes it. Letters beyond ASCII stay: Jinja would read the JSON escape of one as two halves."""
    if value is None:
        return "none"
    return json.dumps(value, ensure_ascii=False)


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


# --- the model's own template -----------------------------------------------------------------------


def _own_template(render: Renderer) -> str | None:
    """The model's template, or one that writes plain lines; it opens the assistant's turn. None: it cannot."""
    if not render.tokenizer.chat_template:
        return _plain_template(render)
    own = render.tokenizer.get_chat_template()
    own = re.sub(r"\A[ \t]+(?=\{[%#])", "", own)  # as Jinja strips it in a template's first line
    if render.opens:
        return own
    messages = [_message("user", "q")]
    closed, text = render.applied(messages), render.text(Prompt(), Example(name="", question="q", answer=""))
    if not text.startswith(closed):
        return None
    header = text[len(closed) :]
    return f"{own}{{%- if add_generation_prompt %}}{{{{- {_literal(header)} }}}}{{%- endif %}}" if header else own


def _plain_template(render: Renderer) -> str:
    """What `Renderer` writes for models without a template, with the start of text that their tokenizer adds."""
    tokenizer = render.tokenizer
    added = tokenizer("")["input_ids"]
    start = "{{- bos_token }}" if added and added[0] == tokenizer.bos_token_id else ""
    labels = "{'system': '', 'user': 'User:\\n', 'assistant': 'Assistant:\\n'}"
    line = f"{{{{- {labels}[message['role']] + message['content'] + '\\n' }}}}"
    opened = "{%- if add_generation_prompt %}{{- 'Assistant:\\n' }}{%- endif %}"
    return f"{start}{{%- for message in messages %}}{line}{{%- endfor %}}{opened}"
