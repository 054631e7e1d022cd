"""Shows a server's latency repeatedly."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from time import monotonic, sleep

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from doherty import Client, DeadlineExceededError, OverloadedError, UnavailableError
from doherty.cli._console import make_console
from doherty.cli._echo import silenced
from doherty.cli._latency_tables import QUANTILE_HEADINGS, headline, quantile_rows, view_rows
from doherty.cli._tables import make_table
from doherty.cli._terminal import brief, harmless_json
from doherty.cli._trend import Trend, View

_Show = Callable[[View | Exception], None]


def run_watch(client: Client, window: float | None, seconds: float, *, as_json: bool) -> None:
    """Requests the latency every `seconds` and shows it, until Ctrl-C.

    If the server cannot be reached, this shows the error and tries again.

    Raises:
        RpcError: The server refuses the request.
    """
    trend = Trend()
    with _display(client.target, as_json=as_json) as show:
        while True:
            asked = monotonic()
            try:
                show(trend.look(client.latency(window), asked, monotonic()))
            except (DeadlineExceededError, OverloadedError, UnavailableError) as error:
                show(error)
            sleep(seconds)


@contextmanager
def _display(target: str, *, as_json: bool) -> Iterator[_Show]:
    """Draws a table repeatedly if the terminal supports it, otherwise prints one line per report."""
    console = make_console()
    if as_json:
        yield _print_json
    elif not sys.stdout.isatty() or console.is_dumb_terminal:
        yield _print_line
    else:
        with silenced(), Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
            yield _Table(live, target).show


class _Table:
    """The last report that was received, and its age."""

    def __init__(self, live: Live, target: str) -> None:
        self._live = live
        self._target = target
        self._last: View | None = None
        self._last_at = ""

    def show(self, look: View | Exception) -> None:
        """Draws it."""
        if isinstance(look, View):
            self._last, self._last_at = look, _now()
            state = Text(f"{self._target} at {self._last_at}; Ctrl-C ends", style="dim")
        else:
            seen = f"; below, what it said at {self._last_at}" if self._last else ""
            state = Text(f"{_now()}: {brief(str(look))}{seen}", style="yellow")
        self._live.update(Group(state, *self._tables()), refresh=True)

    def _tables(self) -> list[RenderableType]:
        if self._last is None:
            return []
        latency = self._last.latency
        tables = make_table(quantile_rows(latency), headings=QUANTILE_HEADINGS), make_table(view_rows(self._last))
        return [Text(f"\n{headline(latency)}\n"), tables[0], Text(), tables[1]]


def _print_line(look: View | Exception) -> None:
    if isinstance(look, View):
        times = ", ".join(f"{name} {'/'.join(values)}" for name, *values in quantile_rows(look.latency))
        state = ", ".join(f"{name}: {value}" for name, value in view_rows(look))
        click.echo(f"{_now()} {look.latency.answers} answers, ms at p50/p90/p99: {times}; {state}")
    else:
        click.echo(f"{_now()} {brief(str(look))}")


def _print_json(look: View | Exception) -> None:
    content = {**look.latency.to_dict(), **_since(look)} if isinstance(look, View) else {"error": str(look)}
    line = json.dumps({"time": datetime.now().astimezone().isoformat(), **content}, ensure_ascii=False)
    click.echo(harmless_json(line))


def _since(view: View) -> dict[str, object]:
    return {
        "restarts": view.restarts,
        "refusals_per_second": view.refusals_per_second,
        "aborts_per_second": view.aborts_per_second,
    }


def _now() -> str:
    return f"{datetime.now().astimezone():%H:%M:%S}"
