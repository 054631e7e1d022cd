"""What a server told of its latency, as tables."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final

import click

from doherty import EndedRequests, Latency, Quantiles
from doherty.cli._tables import Row, milliseconds, percent, print_table
from doherty.cli._trend import View

QUANTILE_HEADINGS = ("", "p50", "p90", "p99")

_MOST_SHOWN: Final = 8
"""Of keys, and of refusals by key; the others are only counted."""


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
    of_all = "" if told.requests is None else f", of {told.requests.count} requests that ended"
    return f"{told.answers} answers in the last {told.window:g} s{of_all}; times in ms as the server saw them"


def quantile_rows(told: Latency) -> list[Row]:
    """The times: queue and first token of all requests, where the server tells them, and the others of the answers."""
    ended = told.requests
    if ended is None:
        first = [("queue", *_three(told.queue)), ("first token (TTFT)", *_three(told.time_to_first_token))]
    else:
        unknown = "never" if ended.owed else "-"
        first = [
            ("queue", *_three(ended.queue)),
            ("first token (TTFT)", *_three(ended.time_to_first_token, unknown=unknown)),
        ]
    return [
        *first,
        ("last token (TTLT)", *_three(told.time_to_last_token)),
        ("per token (TPOT)", *_three(told.time_per_output_token)),
    ]


def _three(times: Quantiles, *, unknown: str = "-") -> list[str]:
    return [unknown if time is None else milliseconds(time) for time in (times.p50, times.p90, times.p99)]


def state_rows(told: Latency) -> list[Row]:
    """The shares within the threshold, and what goes on right now."""
    ended = told.requests
    if ended is None:
        first = percent(told.first_token_share)
    else:
        first = f"{percent(ended.first_token_share)} of {ended.owed} requests"
    return [
        (f"within {told.threshold * 1000:g} ms", f"first token {first}, whole answer {percent(told.last_token_share)}"),
        *([] if ended is None else _ended_rows(ended)),
        ("now", f"{told.running} running on {told.slots} slots, {told.queued} queued"),
        *([] if told.kv_cache_use is None else [("KV cache", percent(told.kv_cache_use))]),
    ]


def _ended_rows(ended: EndedRequests) -> Iterator[Row]:
    """How the requests of the window ended, and whose they were as far as the server tells that."""
    outcomes = [" ".join(filter(None, (str(one.count), one.status, one.reason))) for one in ended.outcomes if one.count]
    yield "ended", ", ".join(outcomes) or "none"
    by_key = [f"{one.key} {one.count}" for one in ended.by_key if one.key and one.count]
    if by_key:
        yield "by key", _first(by_key)
    refused = [f"{one.key} {one.count} {one.reason}" for one in ended.refusals if one.key and one.count]
    if refused:
        yield "refused by key", _first(refused)


def _first(parts: Sequence[str]) -> str:
    more = len(parts) - _MOST_SHOWN
    return ", ".join(parts[:_MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")


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
