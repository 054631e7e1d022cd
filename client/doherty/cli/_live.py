"""An answer as Markdown, on a terminal, while it comes in."""

import threading
from itertools import dropwhile
from types import TracebackType
from typing import Final, Self

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment

_FRAME_SECONDS: Final = 0.1

# As rich's own Markdown reads it.
_PARSER: Final = MarkdownIt().enable("strikethrough").enable("table")


class LiveMarkdown:
    """Shows Markdown that grows.

    What is settled, every block but the last one, is printed for good and scrolls away as any text does; only the last
    block is drawn again and again, and of one that is taller than the screen only its end: a terminal cannot redraw
    what it has scrolled out of sight.
    """

    def __init__(self, console: Console) -> None:
        """Shows on `console`, which is a terminal that can move its cursor."""
        self._console = console
        self._tail = _Tail()
        self._live = Live(
            self._tail,
            console=console,
            # Its own thread may draw between the two halves of what `print` does here, and then counts lines wrongly.
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._drawing = threading.Lock()
        self._ended = threading.Event()
        self._painter = threading.Thread(target=self._paint, daemon=True)

    def __enter__(self) -> Self:
        self._live.start()
        self._painter.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._painter.join()
        # What there is stays on the screen, whatever ended it.
        try:
            self._settle(len(self._tail.text))
        finally:
            self._live.stop()

    def write(self, text: str) -> None:
        """Appends a part of the answer."""
        with self._drawing:
            self._tail.text += text
        if "\n" in text:
            self._settle(_begin_of_last_block(self._tail.text))

    def draw(self) -> None:
        """Shows what was written so far, as happens by itself a few times a second."""
        with self._drawing:
            self._live.refresh()

    def _paint(self) -> None:
        while not self._ended.wait(_FRAME_SECONDS):
            self.draw()

    def _settle(self, length: int) -> None:
        settled = _Part(self._tail.text[:length], spaced=self._tail.spaced)
        if not settled.text.strip():
            return
        with self._drawing:
            self._tail.text = self._tail.text[length:]
            self._tail.spaced = True
            self._console.print(settled)


class _Part:
    """Some blocks, with a line of space before them when others came before."""

    def __init__(self, text: str = "", *, spaced: bool = False) -> None:
        self.text = text
        self.spaced = spaced

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self.text.strip():
            return
        # Not every terminal shows where a link leads to.
        lines = console.render_lines(Markdown(self.text, hyperlinks=False), options.reset_height(), pad=False)
        if self.spaced:
            yield Segment.line()
        # Some kinds of blocks begin with a line of space.
        for line in dropwhile(_is_blank, lines):
            yield from line
            yield Segment.line()


class _Tail(_Part):
    """The end of a part, as much of it as the screen holds."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(_Part(self.text, spaced=self.spaced), options, pad=False)
        # One line less than there are: the cursor needs a place below.
        for line in lines[-(console.size.height - 1) :]:
            yield from line
            yield Segment.line()


def _is_blank(line: list[Segment]) -> bool:
    return not any(part.text.strip() or (part.style and part.style.bgcolor) for part in line)


def _begin_of_last_block(text: str) -> int:
    """Where the last block begins that the text's whole lines have; a line that still grows may change what it is."""
    lines = text.split("\n")[:-1]
    tokens = _PARSER.parse("\n".join(lines))
    begins = [token.map[0] for token in tokens if token.level == 0 and token.map and token.nesting >= 0]
    return sum(len(line) + 1 for line in lines[: begins[-1]]) if begins else 0
