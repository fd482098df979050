"""What all settings have in common."""

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """Closed to unknown keys: a typo is an error, not a default."""

    # A wrong value may be a password.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class StyleSettings(Settings):
    """`say` replaces the built-in instruction; `show` is the wanted form of a reference, with `{answer}` in it."""

    say: str | None = Field(None, description="instruction to the model; null: its own")
    show: str | None = Field(None, description="wanted form of a reference, with {answer} in it; null: its own")


class CustomScorer(Settings):
    """Settings of a content scorer of the user's; see `agent.extensions.register_scorer`."""

    kind: str


class CustomStyle(StyleSettings):
    """Settings of a style scorer of the user's; see `agent.extensions.register_style`."""

    kind: str
