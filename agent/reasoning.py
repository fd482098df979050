"""Answers without the thoughts that reasoning models write around them."""

import json
import re
from contextlib import suppress

# How models spell them: DeepSeek and Qwen (think), prompts of many (thinking, reasoning, thought), Seed-OSS, Magistral,
# Kimi, OpenThinker, Cohere, Gemma 4.
NAMES = "think|thinking|thought|thoughts|reasoning|seed:think"
SPELLINGS: tuple[tuple[str, str], ...] = (
    *((f"<{name}>", f"</{name}>") for name in NAMES.split("|")),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel>thought", "<channel|>"),
)
BLOCKS = [
    re.compile(rf"^[ \t]*{re.escape(opened)}.*?(?:{re.escape(closed)}\s*|\Z)", re.DOTALL | re.IGNORECASE | re.MULTILINE)
    for opened, closed in SPELLINGS
]
CLOSED = re.compile(r"^.*(?:" + "|".join(re.escape(closed) for _, closed in SPELLINGS) + ")", re.DOTALL | re.IGNORECASE)
OPENED = re.compile("(?:" + "|".join(re.escape(opened) for opened, _ in SPELLINGS) + r")\s*\Z", re.IGNORECASE)
# gpt-oss' channels ("Harmony"), with their special tokens, and as they read where a server drops these.
CHANNEL = re.compile(
    r"<\|channel\|>\s*(\w+).*?<\|message\|>(.*?)(?=<\|(?:end|return|start|call|channel)\|>|\Z)", re.DOTALL
)
BARE = re.compile(r"\Aanalysis.*assistantfinal", re.DOTALL)


def without_thoughts(text: str) -> str:
    """A model's text without its thoughts; a text without thoughts comes back unchanged.

    Thoughts open at the start of a line and end with their closing tag, or with the text if they were cut off. A
    closing tag alone ends thoughts that the chat template has opened, so all before it goes. A tag within a line opens
    nothing: it is spoken of. A text that is JSON as a whole is an answer, whatever its strings hold.

    Returns:
        The rest, stripped where anything was left out; empty where all was thought.
    """
    if _is_json(text):
        return text
    rest = _final_channel(text)
    for block in BLOCKS:
        rest = block.sub("", rest)
    rest = BARE.sub("", CLOSED.sub("", rest))
    return text if rest == text else rest.strip()


def spoken(text: str) -> str:
    """A model's output without the thoughts that it opens itself, at the start of a line.

    Here a closing tag alone ends nothing, so that no later word changes the answer before it: an answer may be scored
    before it is whole. (Where a chat template opens the thoughts, the output is read with that opening.)
    """
    rest = text
    for block in BLOCKS:
        rest = block.sub("", rest)
    rest = BARE.sub("", rest)
    return text if rest == text else rest.strip()


def left_open(text: str) -> tuple[str, str] | None:
    """The tag, with the white space behind it, by which a text ends in thoughts, and the tag that closes them."""
    if not (found := OPENED.search(text)):
        return None
    tag = found[0].strip().lower()
    return found[0], next(closed for opened, closed in SPELLINGS if opened.lower() == tag)


def may_think(text: str) -> bool:
    """Whether thoughts are in what an output has said so far, or may turn out to be: `spoken` may yet change there."""
    return spoken(text) != text or text.lstrip().startswith("analysis")


def _final_channel(text: str) -> str:
    """The text of the channel for the user; all of it where there are no channels."""
    channels = CHANNEL.findall(text)
    return "".join(message for name, message in channels if name == "final") if channels else text


def _is_json(text: str) -> bool:
    if text.lstrip()[:1] in ("{", "["):
        with suppress(ValueError, RecursionError):
            json.loads(text)
            return True
    return False
