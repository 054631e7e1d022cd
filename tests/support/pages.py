"""The documents: their blocks of code, and which of them no test runs."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

_BLOCK: Final = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]+?) -->\n+)?^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    page: Path
    line: int
    """The line of its first fence."""
    section: str
    """The heading of level 2 that it stands below; empty above the first one."""
    language: str
    title: str
    """The name of the file that it is, from `title="..."`."""
    text: str
    not_run: str
    """Why no test runs it; empty where one does."""


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page in their order."""
    text = page.read_text()
    for found in _BLOCK.finditer(text):
        before = text[: found.start("indent")]
        headings = re.findall(r"^## (.*)$", before, re.MULTILINE)
        language, _, rest = found["info"].partition(" ")
        title = re.search('title="(.+?)"', rest)
        yield Block(
            page=page,
            line=before.count("\n") + 1,
            section=headings[-1] if headings else "",
            language=language,
            title=title[1] if title else "",
            text=found["text"],
            not_run=found["reason"] or "",
        )
