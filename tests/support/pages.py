"""Reads the code blocks of the documents, and the reasons why some of them are not run."""

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
    """The line number of the opening fence."""
    section: str
    """The heading of level 2 above the block; empty if there is none."""
    language: str
    title: str
    """The file name of the block, from `title="..."`."""
    text: str
    not_run: str
    """The reason why no test runs the block; empty if a test runs it."""


def blocks(page: Path) -> Iterator[Block]:
    """Returns the blocks of a page in order."""
    text = page.read_text()
    for block in _BLOCK.finditer(text):
        before = text[: block.start("indent")]
        headings = re.findall(r"^## (.*)$", before, re.MULTILINE)
        language, _, rest = block["info"].partition(" ")
        title = re.search('title="(.+?)"', rest)
        yield Block(
            page=page,
            line=before.count("\n") + 1,
            section=headings[-1] if headings else "",
            language=language,
            title=title[1] if title else "",
            text=block["text"],
            not_run=block["reason"] or "",
        )
