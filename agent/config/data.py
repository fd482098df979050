"""`data:` in a task.yaml: where the rows are, and which columns to read."""

from typing import Literal

from pydantic import Field, model_validator

from agent.config.base import Settings


class Cut(Settings):
    """How to cut splits out of a single file, after a seeded shuffle. Shares of all rows."""

    validation: float = Field(0.2, gt=0, lt=1, description="share of validation rows")
    test: float = Field(0.2, gt=0, lt=1, description="share of test rows")
    seed: int = Field(0, description="of the shuffle")

    @model_validator(mode="after")
    def leaves_rows_to_train(self) -> "Cut":
        if self.validation + self.test >= 1:
            raise ValueError(
                "validation and test together must leave some rows to train on (their sum must be below 1)"
            )
        return self


class Limit(Settings):
    """Use only the first so many rows of a split."""

    train: int | None = Field(None, ge=1, description="train rows; null: all")
    validation: int | None = Field(None, ge=1, description="validation rows; null: all")
    test: int | None = Field(None, ge=1, description="test rows; null: all")


class Data(Settings):
    """Where the rows are: three files, one file to cut, or a hub data set; and which columns to read.

    Paths are relative to the task.yaml. Files end in .jsonl, .json, .csv, .tsv or .parquet.
    """

    train: str | None = Field(None, description="file, or split of the hub data set, that gradients come from")
    validation: str | None = Field(None, description="the same for the rows that decide")
    test: str | None = Field(None, description="the same for the sealed rows")
    path: str | None = Field(None, description="one file, cut by `cut`")
    extra: tuple[str, ...] = Field(
        (), description="files of more train rows, with the same columns, such as `nesylora rows from-log` writes"
    )
    hub: str | None = Field(
        None, description="data set name on the Hugging Face hub; then train, validation and test name its splits"
    )
    hub_config: str | None = Field(None, description="configuration of the hub data set")
    cut: Cut | None = None
    question: str = Field("question", description="column of the question")
    answer: str = Field("answer", description="column of the reference answer")
    input: str | None = Field(
        None,
        description="column that goes on from the question, on a new line, where it holds anything; `input` by itself "
        'where the question is `instruction`; "" takes none',
    )
    messages: str | None = Field(None, description="column of chat messages, instead of question and answer")
    limit: Limit = Limit()
    skip_invalid: bool = Field(False, description="leave out rows that cannot be read, and count them")
    too_long: Literal["refuse", "leave_out", "wrong"] = Field(
        "refuse",
        description="validation and test rows that, with the seed prompt and generation.max_new_tokens, do not fit "
        "into the model's window: end the run before it begins, leave them out of it, or count them as wrong",
    )

    @property
    def columns(self) -> tuple[str, ...]:
        """Those that every row must have."""
        return (self.messages,) if self.messages else (self.question, self.answer)

    @model_validator(mode="after")
    def says_where_rows_come_from(self) -> "Data":
        splits = [self.train, self.validation, self.test]
        if self.hub:
            if self.path:
                raise ValueError("give `path` or `hub`, not both")
            if not self.train:
                raise ValueError("a hub data set needs `train`: the name of the hub's split to train on")
        elif self.path:
            if any(splits):
                raise ValueError("give either `path` (one file to cut) or `train`, `validation` and `test`, not both")
        elif not all(splits):
            raise ValueError("give `train`, `validation` and `test` files, or one `path` to cut into them")
        return self
