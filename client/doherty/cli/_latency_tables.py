"""What a server told of its latency, as tables."""

from datetime import timedelta

import click

from doherty._core._deployment import Latency
from doherty.cli._tables import Row, milliseconds, percent, print_table
from doherty.cli._trend import View

QUANTILE_HEADINGS = ("", "p50", "p90", "p99")


def print_latency(told: Latency) -> None:
    """Prints one look."""
    click.echo(f"{head(told)}\n")
    print_table(quantile_rows(told), headings=QUANTILE_HEADINGS)
    click.echo()
    aborts = ", ".join(f"{cause} {count}" for cause, count in told.aborts.items())
    since = ("since the start", f"{told.refusals} refused, aborted: {aborts or 'none'}; engine {_restarts(told)}")
    print_table([*state_rows(told), since, _up_row(told)])


def head(told: Latency) -> str:
    """What the times are of."""
    return f"{told.answers} answers in the last {told.window:g} s, times in ms as the server saw them"


def quantile_rows(told: Latency) -> list[Row]:
    """The times."""
    figures = {
        "queue": told.queue,
        "first token (TTFT)": told.time_to_first_token,
        "last token (TTLT)": told.time_to_last_token,
        "per token (TPOT)": told.time_per_output_token,
    }
    return [(name, *map(milliseconds, (times.p50, times.p90, times.p99))) for name, times in figures.items()]


def state_rows(told: Latency) -> list[Row]:
    """The shares within the threshold, and what goes on right now."""
    within = f"within {told.threshold * 1000:g} ms"
    return [
        (within, f"first token {percent(told.first_token_share)}, whole answer {percent(told.last_token_share)}"),
        ("now", f"{told.running} running on {told.slots} slots, {told.queued} queued"),
        *([] if told.kv_cache_use is None else [("KV cache", percent(told.kv_cache_use))]),
    ]


def view_rows(view: View) -> list[Row]:
    """The state of one look of several, with what has happened since the one before."""
    told, rates = view.told, view.aborts_per_second or {}
    aborts = ", ".join(f"{cause} {count}{_rate(rates.get(cause))}" for cause, count in told.aborts.items())
    restarts = f"; restarted {view.restarts}x since the first look" if view.restarts else ""
    return [
        *state_rows(told),
        ("refused", f"{told.refusals}{_rate(view.refusals_per_second)}"),
        ("aborted", aborts or "none"),
        ("engine", _restarts(told)),
        (_up_row(told)[0], _up_row(told)[1] + restarts),
    ]


def _restarts(told: Latency) -> str:
    return f"restarted {told.engine_restarts}x"


def _rate(per_second: float | None) -> str:
    return "" if per_second is None else f" ({per_second:.1f}/s)"


def _up_row(told: Latency) -> Row:
    return "up for", str(timedelta(seconds=round(told.uptime)))
