"""`start:` in a task.yaml: an adapter, a prompt, or both, that the run goes on from."""

from pydantic import Field, model_validator

from agent.config.base import Settings


class Start(Settings):
    """What the run goes on from. One path in place of the section takes both from a bundle."""

    adapter: str | None = Field(
        None,
        description="a peft LoRA: its folder, or a bundle's; it is copied into the run; the path starts at the task",
    )
    prompt: str | None = Field(
        None, description="in place of `prompt`: a system text, or the path of what `prompt.file` takes"
    )

    @model_validator(mode="before")
    @classmethod
    def may_be_one_bundle(cls, start: object) -> object:
        return {"adapter": start, "prompt": start} if isinstance(start, str) else start
