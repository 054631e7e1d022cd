"""The latency of a server as tables."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final

import click

from doherty import EndedRequests, Latency, Quantiles
from doherty.cli._tables import Row, milliseconds, percent, print_table
from doherty.cli._trend import View

QUANTILE_HEADINGS = ("", "p50", "p90", "p99")

_MAX_SHOWN: Final = 8
"""A row lists at most this many keys, or refusals by key, and ends with the number of the others."""


def print_latency(latency: Latency) -> None:
    """Prints one report."""
    click.echo(f"{headline(latency)}\n")
    print_table(quantile_rows(latency), headings=QUANTILE_HEADINGS)
    click.echo()
    aborts = ", ".join(f"{cause} {count}" for cause, count in latency.aborts.items())
    since = ("since the start", f"{latency.refusals} refused, aborted: {aborts or 'none'}; engine {_restarts(latency)}")
    print_table([*state_rows(latency), since, _up_row(latency)])


def headline(latency: Latency) -> str:
    """Says which answers the report covers, and in which unit the times are."""
    of_all = "" if latency.requests is None else f", of {latency.requests.count} requests that ended"
    return f"{latency.answers} answers in the last {latency.window:g} s{of_all}; times in ms, measured by the server"


def quantile_rows(latency: Latency) -> list[Row]:
    """Returns the quantiles of the times.

    If the server reports them, the rows "queue" and "first token" also cover requests that ended without an answer:
    see `EndedRequests`. The other rows cover answers only.
    """
    ended = latency.requests
    if ended is None:
        first = [("queue", *_three(latency.queue)), ("first token (TTFT)", *_three(latency.time_to_first_token))]
    else:
        # A quantile of the first token is None if the request at that rank never got one.
        unknown = "never" if ended.owed else "-"
        first = [
            ("queue", *_three(ended.queue)),
            ("first token (TTFT)", *_three(ended.time_to_first_token, unknown=unknown)),
        ]
    return [
        *first,
        ("last token (TTLT)", *_three(latency.time_to_last_token)),
        ("per token (TPOT)", *_three(latency.time_per_output_token)),
    ]


def _three(times: Quantiles, *, unknown: str = "-") -> list[str]:
    return [unknown if time is None else milliseconds(time) for time in (times.p50, times.p90, times.p99)]


def state_rows(latency: Latency) -> list[Row]:
    """Returns the shares within the threshold, and the current state."""
    ended = latency.requests
    if ended is None:
        first = percent(latency.first_token_share)
    else:
        first = f"{percent(ended.first_token_share)} of {ended.owed} requests"
    return [
        (
            f"within {latency.threshold * 1000:g} ms",
            f"first token {first}, whole answer {percent(latency.last_token_share)}",
        ),
        *([] if ended is None else _ended_rows(ended)),
        ("now", f"{latency.running} running on {latency.slots} slots, {latency.queued} queued"),
        *([] if latency.kv_cache_use is None else [("KV cache", percent(latency.kv_cache_use))]),
    ]


def _ended_rows(ended: EndedRequests) -> Iterator[Row]:
    """Returns how the requests of the window ended, by key if the server reports keys."""
    outcomes = [
        " ".join(filter(None, (str(outcome.count), outcome.status, outcome.reason)))
        for outcome in ended.outcomes
        if outcome.count
    ]
    yield "ended", ", ".join(outcomes) or "none"
    by_key = [f"{requests.key} {requests.count}" for requests in ended.by_key if requests.key and requests.count]
    if by_key:
        yield "by key", _first(by_key)
    refused = [
        f"{refusals.key} {refusals.count} {refusals.reason}"
        for refusals in ended.refusals
        if refusals.key and refusals.count
    ]
    if refused:
        yield "refused by key", _first(refused)


def _first(parts: Sequence[str]) -> str:
    more = len(parts) - _MAX_SHOWN
    return ", ".join(parts[:_MAX_SHOWN]) + (f" and {more} more" if more > 0 else "")


def view_rows(view: View) -> list[Row]:
    """Returns the state in a report, and what changed since the previous report."""
    latency, rates = view.latency, view.aborts_per_second or {}
    aborts = ", ".join(f"{cause} {count}{_rate(rates.get(cause))}" for cause, count in latency.aborts.items())
    restarts = f"; restarted {view.restarts}x since the first look" if view.restarts else ""
    return [
        *state_rows(latency),
        ("refused", f"{latency.refusals}{_rate(view.refusals_per_second)}"),
        ("aborted", aborts or "none"),
        ("engine", _restarts(latency)),
        (_up_row(latency)[0], _up_row(latency)[1] + restarts),
    ]


def _restarts(latency: Latency) -> str:
    return f"restarted {latency.engine_restarts}x"


def _rate(per_second: float | None) -> str:
    return "" if per_second is None else f" ({per_second:.1f}/s)"


def _up_row(latency: Latency) -> Row:
    return "up for", str(timedelta(seconds=round(latency.uptime)))
