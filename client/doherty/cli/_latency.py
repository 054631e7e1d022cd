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
    help="How far to look back; by default all that the server keeps.",
)
@click.option(
    "--watch",
    type=click.FloatRange(min=0.1),
    is_flag=False,
    flag_value=_WATCH_SECONDS,
    metavar="[SECONDS]",
    help=f"Look again and again, every {_WATCH_SECONDS:g} s by default, until Ctrl-C.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, times in seconds; --watch, one a line.")
@server_options(timeout=10)
def latency(*, server: ServerOptions, window: float | None, watch: float | None, as_json: bool) -> None:
    """Tell how fast the server has been.

    The times are the server's own. Queue and first token are those of all requests that ended in the window, however
    they ended: "never" is where a request got no first token. The others are those of the answers that ended well.
    Names of keys are told to the holder of an operator's key, and to others their own.

    --watch also tells how many requests a second were refused and aborted since the look before, and goes on when the
    server goes away and comes back.
    """
    with server.connect() as client:
        if watch is not None:
            from doherty.cli._watch import run_watch  # noqa: PLC0415 - most looks are single ones

            run_watch(client, window, watch, as_json=as_json)
            return
        measured = client.latency(window)
    if as_json:
        print_json(measured.to_dict())
    else:
        print_latency(measured)
