"""The command `doherty latency`."""

from typing import Final

import click

from doherty.cli._connect import ServerCommand, ServerOptions, server_options
from doherty.cli._latency_tables import print_latency
from doherty.cli._tables import print_json

_WATCH_SECONDS = 2.0


_EXAMPLES: Final = """\
\b
Examples:
  doherty latency
  doherty latency --window 60 --json
  doherty latency --watch
  doherty latency --watch 10 --json >> latency.jsonl
"""


@click.command(cls=ServerCommand, epilog=_EXAMPLES)
@click.option(
    "--window",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="The period to report. The default is everything that the server keeps.",
)
@click.option(
    "--watch",
    type=click.FloatRange(min=0.1),
    is_flag=False,
    flag_value=_WATCH_SECONDS,
    metavar="[SECONDS]",
    help=f"Repeat the report until Ctrl-C, by default every {_WATCH_SECONDS:g} s.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object (with --watch, one per line). Times are in seconds."
)
@server_options(timeout=10)
def latency(*, server: ServerOptions, window: float | None, watch: float | None, as_json: bool) -> None:
    """Show the latency of the server.

    The server measures the times. Those for queue and first token cover all requests that ended in the window, with any
    status; "never" means that a request got no first token. The others cover the answers that ended with OK. The holder
    of an operator's key sees the names of all keys, others only their own.

    --watch also shows how many requests per second were refused and aborted since the previous report. It continues if
    the server goes away and comes back.
    """
    with server.connect() as client:
        if watch is not None:
            from doherty.cli._watch import run_watch  # noqa: PLC0415 - needed only with --watch

            run_watch(client, window, watch, as_json=as_json)
            return
        measured = client.latency(window)
    if as_json:
        print_json(measured.to_dict())
    else:
        print_latency(measured)
