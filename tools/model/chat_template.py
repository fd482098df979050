"""From a Prompt and an Example to token ids, through the model's own chat template."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from jinja2.exceptions import TemplateError

from agent.errors import BadInput
from agent.records.examples import Example, Prompt
from tools.model.open_reasoning import OpenReasoning, open_reasoning

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]
NEXT_TURN = re.compile(r"(?:^|\n)User:(?:\n|$)")  # of models without a chat template
MARK = "§"  # a text to find again in what a template renders
SWITCHES = ("enable_thinking", "thinking")  # arguments of chat templates that turn thoughts off


@dataclass(frozen=True)
class TokenRow:
    """Token ids of one row: the prompt, and the completion that is scored or learned (may be empty)."""

    prompt: list[int]
    completion: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


class Renderer:
    """Renders prompts for one tokenizer. Models without a chat template get plain `User:`/`Assistant:` lines.

    Args:
        tokenizer: a fast one.
        switches: arguments of the chat template, such as `enable_thinking`; for training rows as for questions.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", switches: Mapping[str, object] | None = None) -> None:
        self.tokenizer = tokenizer
        self.switches: dict[str, Any] = dict(switches or {})  # transformers types each of its own arguments

    def check(self, name: str) -> None:
        """Try the chat template on a question and an answer.

        Args:
            name: what error messages call the model.

        Raises:
            BadInput: it cannot render them, has no such switch, or nothing tells the model where an answer ends.
        """
        template = self.tokenizer.chat_template
        for switch in self.switches:
            if not template:
                raise BadInput(f"model '{name}' has no chat template, so chat_template_kwargs.{switch} has no effect")
            if not re.search(rf"\b{re.escape(switch)}\b", str(template)):
                raise BadInput(
                    f"chat_template_kwargs.{switch}: the chat template of model '{name}' does not read it; leave it out"
                )
        try:
            read = not template or MARK in self.text(Prompt(), Example(name="", question=MARK, answer=""))
        except TemplateError as error:
            raise BadInput(f"the chat template of model '{name}' cannot render a question: {error}") from error
        if not read:
            raise BadInput(f"the chat template of model '{name}' leaves the user's question out")
        if self._end is None:
            raise BadInput(
                f"nothing tells model '{name}' where an answer ends: its tokenizer has no eos_token, and its chat "
                "template ends an assistant's turn with no special token. Set eos_token in its tokenizer_config.json."
            )

    @staticmethod
    def messages(prompt: Prompt, example: Example) -> list[Message]:
        """System text and demonstrations (the prompt's, then the example's own), earlier turns, the question.

        Raises:
            ValueError: the prompt retrieves, and nobody has looked up what. (See `agent.protocols.Retriever`.)
        """
        if prompt.retrieval:
            raise ValueError(f"a prompt that shows {prompt.retrieval} is rendered only after these were looked up")
        texts = "\n\n".join(filter(None, (prompt.system, example.system)))
        system = [_message("system", texts)] if texts else []
        demos = [
            message
            for demo in (*prompt.demos, *example.demos)
            for message in (_message("user", prompt.ask(demo.question)), _message("assistant", demo.answer))
        ]
        turns = [_message(turn.role, turn.content) for turn in example.turns]
        return [*system, *demos, *turns, _message("user", prompt.ask(example.question))]

    def text(self, prompt: Prompt, example: Example) -> str:
        """All that the model reads before it answers."""
        messages = self.messages(prompt, example)
        if not self.tokenizer.chat_template:
            # Labels on lines of their own: after a space an answer is tokenised in another way than after a line's end.
            labels = {"system": "", "user": "User:\n", "assistant": "Assistant:\n"}
            lines = [labels[message["role"]] + message["content"] for message in messages]
            return "\n".join([*lines, "Assistant:\n"])
        if not self.takes_system and messages[0]["role"] == "system":
            system, first, *rest = messages
            messages = [_message(first["role"], f"{system['content']}\n\n{first['content']}"), *rest]
        if self.opens:
            return self.applied(messages, add_generation_prompt=True)
        before, found, _ = self.applied([*messages, _message("assistant", MARK)]).rpartition(MARK)
        return before if found else self.applied(messages)

    def prompt_ids(self, prompt: Prompt, example: Example) -> list[int]:
        """The same as ids. The start of text comes from the chat template or, without one, from the tokenizer."""
        text, plain = self.text(prompt, example), not self.tokenizer.chat_template
        return list(self.tokenizer(text, add_special_tokens=plain)["input_ids"])

    def prompts_ids(self, prompt: Prompt, examples: Sequence[Example]) -> list[list[int]]:
        """`prompt_ids` of many examples, in one call of the tokenizer."""
        texts, plain = [self.text(prompt, example) for example in examples], not self.tokenizer.chat_template
        return list(self.tokenizer(texts, add_special_tokens=plain)["input_ids"]) if texts else []

    def row(self, prompt: Prompt, example: Example) -> TokenRow:
        """A training row: the answer and the end-of-turn token are the completion.

        Where the chat template opens thoughts, the completion closes them first.
        """
        before, known = self._join(example.answer)
        return TokenRow(self.prompt_ids(prompt, example), [*self.ids(before + example.answer[known:]), self.end])

    def scored_row(self, prompt: Prompt, example: Example, given: str, scored: str) -> TokenRow:
        """A row whose completion begins with `given`, and in which only the tokens of `scored` count.

        The two are tokenised as one text; a token that reaches over the border counts as scored. Where the chat
        template opens thoughts, what closes them is part of the prompt.
        """
        before, known = self._join(given + scored)
        text = before + (given + scored)[known:]
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        start = len(before) + max(0, len(given) - known)
        border = sum(end <= start for _, end in encoded["offset_mapping"])
        ids = encoded["input_ids"]
        return TokenRow([*self.prompt_ids(prompt, example), *ids[:border]], ids[border:])

    def ids(self, text: str) -> list[int]:
        """The tokens of a text, without a start or an end of text."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def output(self, ids: list[int]) -> str:
        """The text of generated ids, after the tag by which the chat template opens thoughts, where it does.

        The tag that closes them stays even where it is a special token. A model without a chat template has not learned
        where its turn ends, and goes on with the user's: that is no part of its answer.
        """
        reasoning = self._reasoning
        if not self.tokenizer.chat_template:
            return NEXT_TURN.split(self.text_of(ids), maxsplit=1)[0].rstrip()
        if not reasoning:
            return self.text_of(ids)
        tag = self.ids(reasoning.tag)
        if len(tag) == 1 and tag[0] in ids and not self.text_of(tag):
            end = ids.index(tag[0])
            return reasoning.opening + self.text_of(ids[:end]) + reasoning.tag + self.text_of(ids[end + 1 :])
        return reasoning.opening + self.text_of(ids)

    def remarks(self) -> list[str]:
        """Sentences about what the chat template does to answers."""
        if not self._reasoning:
            return []
        switches = (
            name
            for name in SWITCHES
            if re.search(rf"\b{name}\b", str(self.tokenizer.chat_template))
            and not Renderer(self.tokenizer, {**self.switches, name: False})._reasoning
        )
        remark = (
            f"the model's chat template opens thoughts ({self._reasoning.opening.strip()}) before every answer: "
            "answers are learned and measured behind their end, and the model itself may think until it is trained."
        )
        return [remark + "".join(f" Set chat_template_kwargs: {{{name}: false}} to open none." for name in switches)]

    @cached_property
    def _reasoning(self) -> OpenReasoning | None:
        if not self.tokenizer.chat_template:
            return None
        asked = self.text(Prompt(), Example(name="", question="q", answer=""))
        return open_reasoning(asked, self.applied([_message("user", "q"), _message("assistant", MARK)]), MARK)

    def _join(self, text: str) -> tuple[str, int]:
        """What to write between the prompt and a text, and how many of its characters the prompt already has."""
        return self._reasoning.join(text) if self._reasoning else ("", 0)

    def text_of(self, ids: list[int]) -> str:
        """The text of ids, without special tokens and outer white space."""
        # Were spaces tidied, a later token could change the text of those before it.
        text = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text).strip()

    @property
    def end(self) -> int:
        """The token that ends an assistant turn; Gemma's, for example, is not the tokenizer's eos.

        Raises:
            BadInput: there is none.
        """
        if self._end is None:
            self.check(self.tokenizer.name_or_path)  # raises
        assert self._end is not None, "a checked tokenizer ends answers"
        return self._end

    @cached_property
    def ends(self) -> tuple[str, ...]:
        """How the end of a turn is written as text: an answer should hold none of these."""
        names = (self.tokenizer.convert_ids_to_tokens(self.end), self.tokenizer.eos_token)
        return tuple(dict.fromkeys(str(name) for name in names if name))

    @cached_property
    def _end(self) -> int | None:
        if self.tokenizer.chat_template:
            text = self.applied([_message("user", "q"), _message("assistant", MARK)])
            after = self.ids(text.rsplit(MARK, 1)[-1].strip())
            special = {number for number, token in self.tokenizer.added_tokens_decoder.items() if token.special}
            if after and after[0] in special:
                return after[0]
        end: int | None = self.tokenizer.eos_token_id
        return end

    @cached_property
    def takes_system(self) -> bool:
        """False for templates that refuse a system turn, and for those that silently leave it out."""
        if not self.tokenizer.chat_template:
            return True
        try:
            return MARK in self.applied([_message("system", MARK), _message("user", "q")])
        except TemplateError:
            return False

    @cached_property
    def opens(self) -> bool:
        """Whether the template writes the assistant's header for a prompt; some only write it with an answer."""
        asked = [_message("user", "q")]
        return self.applied(asked, add_generation_prompt=True) != self.applied(asked)

    def applied(self, messages: list[Message], add_generation_prompt: bool = False) -> str:
        text = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt, **self.switches
        )
        return str(text)


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
