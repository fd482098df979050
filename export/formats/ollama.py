"""A Modelfile. Ollama reads no Jinja, and since 0.34 no adapters: it gets a GGUF, and the prompt in its own words."""

from agent.errors import NesyLoraError
from agent.records.examples import Demo, Example, Prompt, Turn
from export.chat_template import PLACE
from export.manifest import Manifest
from tools.model.chat_template import MARK, Renderer

QUOTES = '"""'
WAY_OUT = "Leave --ollama out: Ollama can import the GGUF by itself, and the prompt goes into the messages."


def modelfile(render: Renderer, prompt: Prompt, manifest: Manifest) -> str:
    """The text of a Modelfile for the bundle's first GGUF file.

    Raises:
        NesyLoraError: the chat template does not put the same text around every turn, or a text holds three quotes.
    """
    if _trims(render):
        prompt = _trimmed(prompt)
    empty = Example(name="", question="", answer="")
    messages = Renderer.messages(prompt.model_copy(update={"retrieval": None}), empty)
    demos, lead = messages[bool(prompt.system) : -1], ""
    if prompt.system and not render.takes_system:  # then the model reads it at the head of the first turn
        lead = f"{prompt.system}\n\n"
        if demos:
            demos[0], lead = {"role": "user", "content": lead + demos[0]["content"]}, ""
    lines = [f"FROM ./{manifest.gguf[0]}", f"TEMPLATE {_quoted(_go_template(render, prompt, lead))}"]
    lines += [f"SYSTEM {_quoted(prompt.system)}"] if prompt.system and render.takes_system else []
    lines += [f"MESSAGE {message['role']} {_quoted(message['content'])}" for message in demos]
    lines += ["PARAMETER temperature 0", f"PARAMETER num_predict {manifest.max_new_tokens}"]
    lines += [f"PARAMETER stop {_quoted(end)}" for end in (*render.ends, *manifest.stop)]
    return "\n".join(lines) + "\n"


def _go_template(render: Renderer, prompt: Prompt, lead: str) -> str:
    """The chat template in Go's template language, with the question template around the last question.

    Args:
        lead: what stands at the head of the first turn.
    """
    bare, reply, again, end = _around_turns(render, Prompt())
    start, after_system = "", bare
    if render.takes_system:
        start, after_system, *rest = _around_turns(render, Prompt(system=MARK))
        if rest != [reply, again, end]:
            raise NesyLoraError(
                f"the model's chat template puts other text around turns after a system text. {WAY_OUT}"
            )
    if reply != end:
        raise NesyLoraError(f"the model's chat template opens its last answer in another way than others. {WAY_OUT}")
    asked = "{{ .Content }}".join(_go(part) for part in prompt.template.split(PLACE))
    heads = (
        f'{{{{- if eq $before "" }}}}{_go(bare + lead)}{{{{- else if eq $before "system" }}}}{_go(after_system)}'
        f"{{{{- else }}}}{_go(again)}{{{{- end }}}}"
    )
    return (
        '{{- $before := "" }}{{- range $i, $_ := .Messages }}{{- $last := eq (len (slice $.Messages $i)) 1 }}'
        f'{{{{- if eq .Role "system" }}}}{_go(start)}{{{{ .Content }}}}'
        f'{{{{- else if eq .Role "user" }}}}{heads}'
        f"{{{{- if $last }}}}{asked}{{{{- else }}}}{{{{ .Content }}}}{{{{- end }}}}"
        f"{{{{- else }}}}{_go(reply)}{{{{ .Content }}}}{{{{- end }}}}"
        f"{{{{- $before = .Role }}}}{{{{- if $last }}}}{_go(end)}{{{{- end }}}}{{{{- end }}}}"
    )


def _around_turns(render: Renderer, prompt: Prompt) -> list[str]:
    """The texts before, between and behind the contents of: a system text where there is one, a question, an answer,
    and another question. Raises NesyLoraError: a content is not found as it was."""
    turns = (Turn(role="user", content=MARK), Turn(role="assistant", content=MARK))
    parts = render.text(prompt, Example(name="", question=MARK, answer="", turns=turns)).split(MARK)
    if len(parts) != (5 if prompt.system else 4):
        raise NesyLoraError(f"the model's chat template cannot be written in Ollama's language. {WAY_OUT}")
    return parts


def _trims(render: Renderer) -> bool:
    """Whether the chat template takes white space off the ends of a turn, which Go's templates cannot."""
    return f" {MARK} " not in render.text(Prompt(), Example(name="", question=f" {MARK} ", answer=""))


def _trimmed(prompt: Prompt) -> Prompt:
    """The prompt without white space at the ends of its turns."""
    demos = tuple(Demo(question=demo.question, answer=demo.answer.strip()) for demo in prompt.demos)
    return prompt.model_copy(
        update={"system": prompt.system.lstrip(), "demos": demos, "template": prompt.template.strip()}
    )


def _go(text: str) -> str:
    """A text that Go's templates print as it is."""
    if not text:
        return ""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{{{{ "{escaped}" }}}}'


def _quoted(text: str) -> str:
    if QUOTES in text:
        raise NesyLoraError(f"a Modelfile has no way to write {QUOTES} inside a text: leave --ollama out")
    return f"{QUOTES}{text}{QUOTES}"
