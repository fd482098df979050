"""The task.yaml of a draft, with a comment on what was found and on what may be changed."""

import textwrap
from collections.abc import Sequence
from typing import Any

import yaml

from eval.drafts.records import TaskDraft

WIDTH = 110
JUDGE = """
A judge instead, which reads what is meant (needs an external LLM; see docs/llm.md):
content: [{kind: judge, rubric: "Does the answer say what the reference says?", compare: true}]
llm: {model: gpt-4.1-mini}
"""


def task_text(draft: TaskDraft, max_new_tokens: int, epochs: int) -> str:
    """The draft's settings as YAML."""
    messages = "messages" in draft.rows["train"][0]
    where = [f"{split}: {split}.jsonl" for split in draft.rows]
    lines = [
        *_comment(f"Drafted from {draft.source} ({draft.format}, {draft.found} rows). All of it may be changed; "
                  "docs/settings.md has every key."),
        f"name: {_value(draft.name)}",  # 2024, on and null are names, too
        f"model: {_value(draft.model)}",
        "",
        *_comment(draft.why["splits"]),
        "data:",
        *(f"  {line}  # {draft.counts[split]} rows" for line, split in zip(where, draft.rows, strict=True)),
        *(["  messages: messages"] if messages else ["  question: question", "  answer: answer"]),
        "",
        *_comment(draft.why["system"]),
        "prompt:",
        f"  system: {_value(draft.system)}",
        "",
        "# Is it right?",
        *_comment(draft.why["content"]),
        "content:",
        *_entries(draft.content),
        *(_comment(JUDGE) if draft.content[0]["kind"] == "f1" else ()),
        "",
        "# Is it in the wanted form? Kinds: starts_with, regex, json, words, forbid, bullets, judge.",
        *_comment(draft.why["style"]),
        *(["style:", *_entries(draft.style)] if draft.style else ["style: []"]),
        "",
        *_comment(draft.why["target"]),
        f"target: {draft.target:g}",
        "",
        *_comment(draft.why["budget"]),
        "budget:",
        f"  rounds: {draft.rounds}",
        f"  minutes: {draft.minutes:g}",
        "",
        "generation:",
        f"  max_new_tokens: {max_new_tokens}  # room for the longest answer of the rows",
        "  # engine: vllm  # a vLLM server answers; openai: any server, for words alone (docs/engines.md)",
        "lora:",
        f"  epochs: {epochs}  # of one training; few rows need more",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    """Comment lines; a text of several lines keeps them."""
    return [
        f"# {part}" for line in text.strip().split("\n") for part in textwrap.wrap(line, WIDTH, break_long_words=False)
    ]


def _entries(scorers: Sequence[dict[str, Any]]) -> list[str]:
    dumped = yaml.safe_dump(list(scorers), sort_keys=False, allow_unicode=True, width=10_000)
    return [f"  {line}" for line in dumped.rstrip().split("\n")]


def _value(text: str) -> str:
    """A text as YAML, on one line."""
    plain = yaml.safe_dump(text, allow_unicode=True, width=10**9).removesuffix("...\n").rstrip("\n")
    return plain if "\n" not in plain else yaml.safe_dump(text, default_style='"', width=10**9).rstrip("\n")
