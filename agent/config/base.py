"""What all settings have in common."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Closed to unknown keys: a typo is an error, not a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)
