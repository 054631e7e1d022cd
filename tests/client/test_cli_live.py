"""Markdown that grows on a terminal."""

import re
from io import StringIO

import pytest
from rich.console import Console
from rich.markdown import Markdown

from doherty.cli import _live
from doherty.cli._live import LiveMarkdown
from support.screen import Screen

ROWS, COLUMNS = 8, 40

TEXT = """\
# Water

Water is made of **hydrogen** and oxygen,
two atoms of the one and one of the other, which is why people write H2O.

1. hydrogen

2. hydrogen
   - the same again
3. oxygen

```python
for atom in ("H", "H", "O"):
    print(atom)
    print(atom)
    print(atom)

    print(atom)
    print(atom)
    print(atom)
    print(atom)
```

| atom | count |
|------|-------|
| H    | 2     |
| O    | 1     |

Under a line
------------

> And a quote, which is a long one: it is longer than what the small screen of this test can show at one time, so that
> only its end may be drawn again and again while it comes in, and all of it has to be there in the end, and only once.
> A quote, which is a long one: it is longer than what the small screen of this test can show at one time, so that
> only its end may be drawn again and again while it comes in, and all of it has to be there in the end, and only once.

See [the page](https://example.org).
"""


def terminal() -> tuple[Console, StringIO]:
    output = StringIO()
    console = Console(
        file=output, force_terminal=True, width=COLUMNS, height=ROWS, color_system=None, _environ={"TERM": "xterm"}
    )
    return console, output


def shown(output: StringIO) -> str:
    screen = Screen(ROWS, COLUMNS)
    screen.feed(output.getvalue())
    # The amount of space between blocks does not matter.
    return re.sub(r"\n{3,}", "\n\n", screen.text.strip("\n"))


def rendered(text: str) -> str:
    console, output = terminal()
    console.print(Markdown(text, hyperlinks=False))
    return shown(output)


@pytest.mark.parametrize("size", [1, 7, 60, 10_000])
def test_the_complete_answer_is_shown_exactly_once(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_live, "_FRAME_SECONDS", 0.001)
    console, output = terminal()
    with LiveMarkdown(console) as display:
        for at in range(0, len(TEXT), size):
            display.write(TEXT[at : at + size])
            display.draw()
    assert shown(output) == rendered(TEXT)


def test_an_answer_is_shown_while_it_arrives() -> None:
    console, output = terminal()
    with LiveMarkdown(console) as display:
        display.write("Water is **hydr")
        display.draw()
        assert shown(output) == "Water is **hydr"
        display.write("ogen** and")
        display.draw()
        assert shown(output) == "Water is hydrogen and"


def test_the_end_of_a_long_answer_is_shown_while_it_arrives() -> None:
    console, output = terminal()
    with LiveMarkdown(console) as display:
        display.write("\n".join(f"- {number}" for number in range(50)))
        display.draw()
        assert shown(output).split() == [part for number in range(43, 50) for part in ("•", str(number))]


def test_an_answer_that_is_cut_off_stays_on_the_screen() -> None:
    console, output = terminal()
    display = LiveMarkdown(console)
    display.__enter__()
    display.write("One.\n\nTwo and")
    display.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert shown(output) == "One.\n\nTwo and"


def test_an_empty_answer_shows_nothing() -> None:
    console, output = terminal()
    with LiveMarkdown(console) as display:
        display.write("\n\n")
    assert shown(output) == ""


def test_a_status_is_one_line_below_the_answer_and_is_removed_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_live, "_PATIENCE_SECONDS", 0)
    console, output = terminal()
    with LiveMarkdown(console, "waiting") as display:
        display.draw()
        assert shown(output) == "waiting"
        display.set_status("")
        display.write("Water and")
        display.draw()
        assert shown(output) == "Water and"
        display.set_status("looking for a server, whose name may well be longer than a line")
        display.draw()
        first, second = shown(output).splitlines()
        assert (first, second[-1]) == ("Water and", "…")
        assert len(second) == COLUMNS
    assert shown(output) == "Water and"
