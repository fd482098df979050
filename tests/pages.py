"""A report as its readers see it."""

import re
from html.parser import HTMLParser

from memory.ledger import RunFolder
from ui.report import write_report

EVIL = "</div><script>alert('x')</script><img src=x onerror=y> | ```\n# not a heading\n[a](javascript:z)"


class Visible(HTMLParser):
    """The words a reader sees, and the tags that hold them."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(run: RunFolder) -> tuple[str, str, str]:
    """The page, the words on it with single spaces, and the Markdown twin."""
    page = write_report(run).read_text(encoding="utf-8")
    seen = Visible()
    seen.feed(page)
    return page, " ".join(" ".join(seen.words).split()), (run.path / "report.md").read_text(encoding="utf-8")


def outside_fences(markdown: str) -> str:
    """Lines that are not in a code block, by the rule that a fence ends at one at least as long."""
    kept, ticks = [], 0
    for line in markdown.splitlines():
        found = re.match(r"(`{3,})(.*)$", line)
        if not ticks and found:
            ticks = len(found[1])
        elif ticks and found and len(found[1]) >= ticks and not found[2].strip():
            ticks = 0
        elif not ticks:
            kept.append(line)
    assert ticks == 0, "a fence is left open"
    return "\n".join(kept)
