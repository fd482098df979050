"""From a Prompt and an Example to token ids, through the model's own chat template."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from jinja2.exceptions import TemplateError

from agent.records import Example, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]

THOUGHTS_OPENED = re.compile(r"<think(?:ing)?>\s*$")


@dataclass(frozen=True)
class TokenRow:
    """Token ids of one row: what is given, and what is scored or learned (may be empty)."""

    prompt: list[int]
    completion: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


class Renderer:
    """Renders prompts for one tokenizer. Models without a chat template get plain `User:`/`Assistant:` lines."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self.tokenizer = tokenizer

    def messages(self, prompt: Prompt, example: Example) -> list[Message]:
        """System text (the prompt's, then the example's own), demonstrations, earlier turns, then the question."""
        texts = "\n\n".join(filter(None, (prompt.system, example.system)))
        system = [_message("system", texts)] if texts else []
        demos = [
            message
            for demo in prompt.demos
            for message in (_message("user", prompt.ask(demo.question)), _message("assistant", demo.answer))
        ]
        turns = [_message(turn.role, turn.content) for turn in example.turns]
        return [*system, *demos, *turns, _message("user", prompt.ask(example.question))]

    def text(self, prompt: Prompt, example: Example) -> str:
        """All that the model reads before it answers."""
        messages = self.messages(prompt, example)
        if not self.tokenizer.chat_template:
            return _plain(messages)
        if not self._takes_system:
            messages = _fold_system(messages)
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def prompt_ids(self, prompt: Prompt, example: Example) -> list[int]:
        """The same as ids. The start of text is written by the chat template or, where there is none, the tokenizer."""
        text, plain = self.text(prompt, example), not self.tokenizer.chat_template
        return list(self.tokenizer(text, add_special_tokens=plain)["input_ids"])

    def row(self, prompt: Prompt, example: Example) -> TokenRow:
        """A training row: the answer and the end-of-turn token are the completion."""
        return TokenRow(self.prompt_ids(prompt, example), [*self.ids(example.answer), self.end])

    def scored_row(self, prompt: Prompt, example: Example, given: str, scored: str) -> TokenRow:
        """A row in which `given` is already said and only the tokens of `scored` count.

        The two are tokenised as one text; a token that reaches over the border counts as scored.
        """
        encoded = self.tokenizer(given + scored, add_special_tokens=False, return_offsets_mapping=True)
        border = sum(end <= len(given) for _, end in encoded["offset_mapping"])
        ids = encoded["input_ids"]
        return TokenRow([*self.prompt_ids(prompt, example), *ids[:border]], ids[border:])

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def output(self, ids: list[int]) -> str:
        """What was said, behind the tag by which the chat template opens thoughts, where it does."""
        return self._opening + self.text_of(ids)

    @cached_property
    def _opening(self) -> str:
        found = THOUGHTS_OPENED.search(self.text(Prompt(), Example(name="", question="q", answer="")))
        return found[0] if found else ""

    def text_of(self, ids: list[int]) -> str:
        """What was said, without special tokens and outer white space."""
        # Tidied spaces would let a later token change the text of those before it.
        text = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text).strip()

    @cached_property
    def end(self) -> int:
        """The token that ends an assistant turn; Gemma's, for one, is not the tokenizer's eos."""
        if self.tokenizer.chat_template:
            text = str(
                self.tokenizer.apply_chat_template([_message("user", "q"), _message("assistant", "§")], tokenize=False)
            )
            after = self.ids(text.rsplit("§", 1)[1].strip())
            special = {number for number, token in self.tokenizer.added_tokens_decoder.items() if token.special}
            if after and after[0] in special:
                return after[0]
        return int(self.tokenizer.eos_token_id)

    @cached_property
    def _takes_system(self) -> bool:
        """Some templates refuse a system turn, some silently leave it out."""
        probe = [_message("system", "§"), _message("user", "q")]
        try:
            return "§" in str(self.tokenizer.apply_chat_template(probe, tokenize=False))
        except TemplateError:
            return False


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _fold_system(messages: list[Message]) -> list[Message]:
    if messages[0]["role"] != "system":
        return messages
    system, first, *rest = messages
    return [_message(first["role"], f"{system['content']}\n\n{first['content']}"), *rest]


def _plain(messages: list[Message]) -> str:
    """Labels on lines of their own: an answer after a space would be tokenised unlike one after a line's end."""
    labels = {"system": "", "user": "User:\n", "assistant": "Assistant:\n"}
    lines = [labels[message["role"]] + message["content"] for message in messages]
    return "\n".join([*lines, "Assistant:\n"])
