"""`prompt:` and `edit:` in a task.yaml: the prompt that the run starts from, and how it is rewritten."""

from typing import Annotated, Any, Literal, get_args

from pydantic import (
    Field,
    GetCoreSchemaHandler,
    SerializerFunctionWrapHandler,
    ValidatorFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from agent import extensions
from agent.config.base import Settings
from agent.errors import BadInput
from agent.records.examples import Demo, Prompt, Retrieval


class SeedPrompt(Settings):
    """The words the run starts from."""

    system: str = Field("", description="system text")
    template: str = Field("{question}", description="how a question is put; must hold {question}")
    demos: tuple[Demo, ...] = Field((), description="few-shot examples before every question: `question`, `answer`")
    retrieval: Retrieval | None = Field(None, description="few-shot examples that are retrieved for each question")
    file: str | None = Field(
        None,
        description="a prompt from elsewhere, in place of the above: a prompts/….json of a run, a bundle, a DSPy "
        "program or a result of GEPA as JSON; its path starts at the task",
    )

    @model_serializer(mode="wrap")
    def without_a_file_it_has_not(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A run's task.yaml holds the texts, and digests of older tasks stay what they were."""
        return {name: value for name, value in dump(self).items() if name != "file" or value}

    @model_validator(mode="after")
    def takes_its_words_from_one_place(self) -> "SeedPrompt":
        if self.file and self.model_fields_set != {"file"}:
            raise ValueError("with `file`, leave system, template, demos and retrieval out: they stand there")
        return self

    @model_validator(mode="after")
    def keeps_a_place_for_the_question(self) -> "SeedPrompt":
        if "{question}" not in self.template:
            raise ValueError("the template must contain {question}")
        return self

    def prompt(self) -> Prompt:
        return Prompt(system=self.system, template=self.template, demos=self.demos, retrieval=self.retrieval)


BuiltInEditor = Literal["rules", "textgrad", "gepa"]


class OrRegisteredEditor:
    """Pydantic metadata: a built-in editor, or one that is registered. The JSON schema has the former."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(
            self._validate,
            handler.generate_schema(BuiltInEditor),
            serialization=core_schema.to_string_ser_schema(),
        )

    def _validate(self, value: object, built_in: ValidatorFunctionWrapHandler) -> object:
        if not isinstance(value, str) or is_editor(value):
            return built_in(value)
        try:
            if extensions.editors.get(value):
                return value
        except BadInput as error:
            raise ValueError(str(error)) from error
        *most, last = (repr(name) for name in (*get_args(BuiltInEditor), *extensions.editors.names()))
        raise PydanticKnownError("literal_error", {"expected": f"{', '.join(most)} or {last}"})


def is_editor(name: str) -> bool:
    """Whether an editor of this name comes with the package."""
    return name in get_args(BuiltInEditor)


class Editing(Settings):
    """The prompt lever."""

    editor: Annotated[str, OrRegisteredEditor()] = Field(
        "rules", description="who rewrites: rules, textgrad or gepa (both by an LLM), or a registered editor"
    )
    critiques: int = Field(
        8,
        ge=1,
        le=100,
        description="most failing train rows that TextGrad criticises in a round, or most reflections of GEPA",
    )
    rewrites: int = Field(12, ge=0, description="hard train questions that TextGrad rewrites in a round; 0: none")
    minibatch: int = Field(
        12, ge=1, description="rows on which proposals are compared; as many train rows are looked at for failures"
    )
    proposals: int = Field(6, ge=1, description="most prompts that are compared in a round")
    metric_calls: int | None = Field(
        None, ge=1, description="answers to train rows that GEPA may score in a round; default: minibatch x proposals"
    )
    demos: int = Field(4, ge=0, description="most demonstrations in a prompt")
    retrieve: int = Field(
        4, ge=0, le=16, description="most train rows that are retrieved for each question; 0: none are, ever"
    )
    floor: float = Field(0.0, ge=0, le=1, description="least cosine similarity of a retrieved row's question")
    max_length: int = Field(6000, ge=1, description="most characters in a prompt")

    @property
    def asks_llm(self) -> bool:
        """Whether an LLM edits, beside the rules."""
        return self.editor in ("textgrad", "gepa")

    @property
    def answers(self) -> int:
        """Answers to train rows that GEPA may score in a round."""
        return self.minibatch * self.proposals if self.metric_calls is None else self.metric_calls

    @property
    def learned_from(self) -> int:
        """Train rows that are answered for editor and planner to learn from; as many as all critiques need."""
        return max(self.minibatch, self.critiques) if self.editor == "textgrad" else self.minibatch
