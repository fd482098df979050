"""Style scorers: whether an output has the wanted form, why not, and how to say and show that form."""

import json
import re
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from agent import extensions
from agent.config.base import CustomStyle, StyleSettings
from agent.config.scorers import (
    Bullets,
    Forbid,
    JsonForm,
    Judge,
    Matches,
    StartsWith,
    StyleScorer,
    Words,
)
from agent.errors import BadInput
from eval.scorers.content import says
from eval.scorers.counts import amount, check_range, described, is_decided, plural, within
from eval.scorers.json_form import json_fault, json_fault_is_final, json_value, put_into, schema_validator
from eval.scorers.patterns import Pattern
from eval.scorers.time_limit import TimeLimit

BULLET = re.compile(r"\s*[-*]\s+\S")

S = TypeVar("S", bound=StyleSettings)


class Style(ABC, Generic[S]):
    """One demand on form. It is met exactly where `explain` finds no fault, so score and sentence cannot disagree."""

    def __init__(self, settings: S) -> None:
        self.settings = settings

    @abstractmethod
    def explain(self, output: str) -> str:
        """One sentence that says what is wrong with the output; empty if nothing is. Raises TooSlow."""

    def is_final(self, beginning: str) -> bool:
        """Whether `explain` is the same for every output that begins with this and white space. In doubt, no."""
        return False

    def needs_instruction(self, output: str) -> bool:
        """Whether the model that wrote this output should get the instruction. Raises TooSlow."""
        return bool(self.explain(output))

    def instruct(self) -> str:
        """One sentence that tells a model what to do; `say` in the settings replaces the built-in one."""
        return self.settings.say or self.instruction()

    @abstractmethod
    def instruction(self) -> str:
        """The built-in sentence of `instruct`."""

    def show(self, answer: str) -> str:
        """The reference answer in the wanted form; `show` in the settings replaces the built-in one."""
        template = self.settings.show
        return self.form(answer) if template is None else template.replace("{answer}", answer)

    def form(self, answer: str) -> str:
        """The built-in way of `show`: the answer as it is, where no general way to mend it exists."""
        return answer


class StartsWithStyle(Style[StartsWith]):
    def explain(self, output: str) -> str:
        if output.lstrip().startswith(self.settings.text.lstrip()):
            return ""
        words = output.split()[: self._shown]
        opening = f"it starts with {_quoted(' '.join(words))}" if words else "it is empty"
        return f'The answer must start with "{self.settings.text}", but {opening}.'

    @property
    def _shown(self) -> int:
        return max(3, len(self.settings.text.split()))

    def is_final(self, beginning: str) -> bool:
        beginning, wanted = beginning.lstrip(), self.settings.text.lstrip()
        return beginning.startswith(wanted) or (
            not wanted.startswith(beginning) and len(beginning.split()) >= self._shown
        )

    def instruction(self) -> str:
        return f'Start your answer with "{self.settings.text}".'

    def form(self, answer: str) -> str:
        return answer if not self.explain(answer) else self.settings.text + answer


class MatchesStyle(Style[Matches]):
    def __init__(self, settings: Matches) -> None:
        super().__init__(settings)
        self.pattern = Pattern(settings.pattern)

    def explain(self, output: str) -> str:
        if self.pattern.matches(output):
            return ""
        return f"The answer must match the regular expression {self.settings.pattern}, but it is {_quoted(output)}."

    def instruction(self) -> str:
        return f"Write an answer that matches the regular expression {self.settings.pattern}."


class JsonStyle(Style[JsonForm]):
    def __init__(self, settings: JsonForm) -> None:
        super().__init__(settings)
        schema = settings.json_schema
        self.validator = None if schema is None else schema_validator(schema)

    def explain(self, output: str) -> str:
        fault = json_fault(output, self.settings.keys, self.validator)
        return f"The answer must be {self.wanted}, but {fault}." if fault else ""

    def is_final(self, beginning: str) -> bool:
        return json_fault_is_final(beginning)

    @property
    def wanted(self) -> str:
        keys = " and ".join(f'"{key}"' for key in self.settings.keys)
        return f"a bare JSON object with {plural(len(self.settings.keys), 'the key')} {keys}" if keys else "bare JSON"

    def instruction(self) -> str:
        schema = self.settings.json_schema
        such = "" if schema is None else f" that satisfies this JSON schema: {json.dumps(schema, default=str)}"
        return f"Answer with {self.wanted}{such}, and nothing around it."

    def show(self, answer: str) -> str:
        template = self.settings.show
        return self.form(answer) if template is None else put_into(template, answer)

    def form(self, answer: str) -> str:
        """The answer itself where it has the form already; else under the one key, where there is one."""
        if len(self.settings.keys) != 1 or not self.explain(answer):
            return answer
        key = json.dumps(self.settings.keys[0], ensure_ascii=False)
        value = answer if isinstance(json_value(answer), dict) else json.dumps(answer, ensure_ascii=False)
        return f"{{{key}: {value}}}"


class WordsStyle(Style[Words]):
    def __init__(self, settings: Words) -> None:
        super().__init__(settings)
        check_range(settings.least, settings.most)

    def explain(self, output: str) -> str:
        count = len(output.split())
        if within(count, self.settings.least, self.settings.most):
            return ""
        return f"The answer must have {self.wanted}, but it has {amount(count, self.settings.most)}."

    def is_final(self, beginning: str) -> bool:
        return is_decided(len(beginning.split()), self.settings.least, self.settings.most)

    @property
    def wanted(self) -> str:
        return described(self.settings.least, self.settings.most, "word")

    def instruction(self) -> str:
        return f"Use {self.wanted}."


class ForbidStyle(Style[Forbid]):
    def explain(self, output: str) -> str:
        found = [word for word in self.settings.words if says(output, word)]
        return f"The answer must not contain {_either(found)}, but it does." if found else ""

    def is_final(self, beginning: str) -> bool:
        return all(says(beginning, word) for word in self.settings.words)  # the sentence names those that were found

    def instruction(self) -> str:
        return f"Do not write {_either(self.settings.words)}."


class BulletsStyle(Style[Bullets]):
    def __init__(self, settings: Bullets) -> None:
        super().__init__(settings)
        check_range(settings.least, settings.most)

    def explain(self, output: str) -> str:
        count = self._count(output)
        if within(count, self.settings.least, self.settings.most):
            return ""
        has = amount(count, self.settings.most)
        return f'The answer must have {self.wanted} that begin with "- ", but it has {has}.'

    def is_final(self, beginning: str) -> bool:
        return is_decided(self._count(beginning), self.settings.least, self.settings.most)

    @staticmethod
    def _count(output: str) -> int:
        return sum(BULLET.match(line) is not None for line in output.splitlines())

    @property
    def wanted(self) -> str:
        return described(self.settings.least, self.settings.most, "line")

    def instruction(self) -> str:
        return f'Write {self.wanted} that begin with "- ".'

    def form(self, answer: str) -> str:
        lines = [line for line in answer.splitlines() if line.strip()]
        return "\n".join(line if BULLET.match(line) else f"- {line}" for line in lines)


class JudgedStyle(Style[Judge]):
    """A demand that only a judge can score. No judge is asked here: every output counts as meeting it."""

    def explain(self, output: str) -> str:
        return ""

    def needs_instruction(self, output: str) -> bool:
        return True  # the output may fail it

    def instruction(self) -> str:
        return self.settings.rubric


class RegisteredStyle(Style[CustomStyle]):
    """A style scorer of the user's."""

    def __init__(self, settings: CustomStyle) -> None:
        super().__init__(settings)
        found = extensions.styles.get(settings.kind)
        assert found is not None, "settings of a kind are made by its registration"
        self._extension = found
        self._limited = TimeLimit(f"style scorer {settings.kind!r}")

    def explain(self, output: str) -> str:
        fault = self._limited(lambda: self._extension.explain(output, self.settings))
        if not isinstance(fault, str):
            raise BadInput(f"the style scorer {self.settings.kind!r} gave {fault!r}; it gives a sentence, or ''")
        return fault

    def instruction(self) -> str:
        return self._extension.instruction

    def form(self, answer: str) -> str:
        return answer if not self.explain(answer) else self._extension.form.replace("{answer}", answer)


AnyStyle = (
    StartsWithStyle | MatchesStyle | JsonStyle | WordsStyle | ForbidStyle | BulletsStyle | JudgedStyle | RegisteredStyle
)


def style_scorer(settings: StyleScorer) -> AnyStyle:
    """The scorer that these settings describe. Raises BadInput where they cannot be satisfied or do not compile."""
    match settings:
        case StartsWith():
            return StartsWithStyle(settings)
        case Matches():
            return MatchesStyle(settings)
        case JsonForm():
            return JsonStyle(settings)
        case Words():
            return WordsStyle(settings)
        case Forbid():
            return ForbidStyle(settings)
        case Bullets():
            return BulletsStyle(settings)
        case Judge():
            return JudgedStyle(settings)
        case CustomStyle():
            return RegisteredStyle(settings)


def _quoted(text: str, most: int = 80) -> str:
    return f'"{text}"' if len(text) <= most else f'"{text[:most]}…"'


def _either(words: tuple[str, ...] | list[str]) -> str:
    return " or ".join(f'"{word}"' for word in words)
