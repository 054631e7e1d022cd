"""Shows an answer as Markdown while it is received."""

import threading
from itertools import dropwhile
from time import monotonic
from types import TracebackType
from typing import Final, Self

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment
from rich.text import Text

from doherty.cli._terminal import brief, harmless

_FRAME_SECONDS: Final = 0.1
_PATIENCE_SECONDS: Final = 0.5
"""The seconds after which a status is shown."""

# The same dialect as that of rich's own Markdown.
_PARSER: Final = MarkdownIt().enable("strikethrough").enable("table")


class LiveMarkdown:
    """Shows Markdown that grows.

    All blocks but the last one are printed once and scroll away like any text. Only the last block is redrawn, and only
    as much of its end as fits the screen, because a terminal cannot redraw what it has scrolled away.
    """

    def __init__(self, console: Console, status: str = "") -> None:
        """`console` is a terminal that can move its cursor. `status` describes what the command is waiting for."""
        self._console = console
        self._tail = _Tail(status)
        self._live = Live(
            self._tail,
            console=console,
            # rich's own thread may draw in the middle of `print`, and then counts lines wrongly.
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
        self.set_status("")
        # The text stays on the screen, no matter how the answer ended.
        try:
            self._settle(len(self._tail.text))
        finally:
            self._live.stop()

    def set_status(self, status: str) -> None:
        """Shows a line below the answer, after a moment without changes; "" removes it."""
        with self._drawing:
            self._tail.set_status(status)

    def write(self, text: str) -> None:
        text = harmless(text)
        with self._drawing:
            self._tail.text += text
        if "\n" in text:
            self._settle(_begin_of_last_block(self._tail.text))

    def draw(self) -> None:
        """Draws the text so far. A thread does this a few times a second."""
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
    """Some blocks, after an empty line if there are blocks before them."""

    def __init__(self, text: str = "", *, spaced: bool = False) -> None:
        self.text = text
        self.spaced = spaced

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self.text.strip():
            return
        # Not every terminal shows the target of a link.
        lines = console.render_lines(Markdown(self.text, hyperlinks=False), options.reset_height(), pad=False)
        if self.spaced:
            yield Segment.line()
        # Some kinds of blocks begin with an empty line.
        for line in dropwhile(_is_blank, lines):
            yield from line
            yield Segment.line()


class _Tail(_Part):
    """The end of a part, as much of it as fits the screen, and the status."""

    def __init__(self, status: str) -> None:
        super().__init__()
        self.set_status(status)

    def set_status(self, status: str) -> None:
        self._status = brief(status)
        self._status_since = monotonic()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(_Part(self.text, spaced=self.spaced), options, pad=False)
        if self._status and monotonic() - self._status_since >= _PATIENCE_SECONDS:
            status = Text(self._status, style="dim", no_wrap=True, overflow="ellipsis")
            lines += console.render_lines(status, options.reset_height(), pad=False)
        # One line less than the screen has, because the cursor needs a line.
        for line in lines[-(console.size.height - 1) :]:
            yield from line
            yield Segment.line()


def _is_blank(line: list[Segment]) -> bool:
    return not any(part.text.strip() or (part.style and part.style.bgcolor) for part in line)


def _begin_of_last_block(text: str) -> int:
    """The start of the last block of the complete lines. An incomplete line may still change the kind of its block."""
    lines = text.split("\n")[:-1]
    tokens = _PARSER.parse("\n".join(lines))
    begins = [token.map[0] for token in tokens if token.level == 0 and token.map and token.nesting >= 0]
    return sum(len(line) + 1 for line in lines[: begins[-1]]) if begins else 0
