"""`memory:` in a task.yaml: servers that runs on several machines remember on together. Files beside the runs else."""

import re

from pydantic import Field, field_validator

from agent.config.address import has_a_port_or_none, require_postgres
from agent.config.base import Settings


class Memory(Settings):
    """Where prompts, the LLM's answers and what rounds brought are kept for later runs; see docs/scale.md."""

    chroma: str = Field("", description="address of a Chroma server for the prompts, such as http://10.0.0.5:8000")
    postgres: str = Field(
        "",
        description="a database for replies and experience, such as postgresql://user@10.0.0.5/nesylora; the password "
        "comes from PGPASSWORD or ~/.pgpass",
    )

    @field_validator("chroma")
    @classmethod
    def is_an_address(cls, chroma: str) -> str:
        if chroma and not (re.fullmatch(r"https?://[^/@?#\s]+/?", chroma) and has_a_port_or_none(chroma)):
            raise ValueError("write it as http://HOST:PORT")
        return chroma.rstrip("/")

    @field_validator("postgres")
    @classmethod
    def holds_no_password(cls, postgres: str) -> str:
        if postgres:
            require_postgres(postgres, "it comes from PGPASSWORD or ~/.pgpass")
        return postgres
