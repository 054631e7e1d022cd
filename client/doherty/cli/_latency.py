"""The command `doherty latency`."""

from datetime import timedelta

import click

from doherty._core._deployment import Latency
from doherty.cli._connect import Server, server_options
from doherty.cli._tables import milliseconds, percent, print_json, print_table


@click.command()
@click.option(
    "--window",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="How far to look back; by default all that the server keeps.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, times in seconds.")
@server_options(timeout=10)
def latency(*, server: Server, window: float | None, as_json: bool) -> None:
    """Tell how fast the server has been.

    The times are the server's own, over the answers that ended well in the window.
    """
    with server.connect() as client:
        told = client.latency(window)
    if as_json:
        print_json(told)
    else:
        _print(told)


def _print(told: Latency) -> None:
    click.echo(f"{told.answers} answers in the last {told.window:g} s, times in ms as the server saw them\n")
    figures = {
        "queue": told.queue,
        "first token (TTFT)": told.time_to_first_token,
        "last token (TTLT)": told.time_to_last_token,
        "per token (TPOT)": told.time_per_output_token,
    }
    print_table(
        [(name, *map(milliseconds, (times.p50, times.p90, times.p99))) for name, times in figures.items()],
        headings=("", "p50", "p90", "p99"),
    )
    aborts = ", ".join(f"{cause} {count}" for cause, count in told.aborts.items())
    within = f"within {told.threshold * 1000:g} ms"
    click.echo()
    print_table(
        [
            (within, f"first token {percent(told.first_token_share)}, whole answer {percent(told.last_token_share)}"),
            ("now", f"{told.running} running on {told.slots} slots, {told.queued} queued"),
            *([] if told.kv_cache_use is None else [("KV cache", percent(told.kv_cache_use))]),
            ("since the start", f"{told.refusals} refused, aborted: {aborts or 'none'}"),
            ("up for", str(timedelta(seconds=round(told.uptime)))),
        ]
    )
