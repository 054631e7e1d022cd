"""Prints the results of a load as tables."""

from typing import Final

import click

from doherty import Quantiles
from doherty.cli._load._run import LoadResult, Side
from doherty.cli._load._statistics import Ratio, percentile, quantiles
from doherty.cli._load._summary import (
    ITL,
    begun_and_complete,
    client_quantiles,
    describe_load,
    describe_throughput,
    errors,
    ratios,
    server_quantiles,
    turned_away,
)
from doherty.cli._report import THRESHOLD
from doherty.cli._tables import milliseconds, print_table
from doherty.cli._terminal import brief

_LABELS: Final = {
    "queue": "queue",
    "time_to_first_token": "first token (TTFT)",
    ITL: "between messages (ITL)",
    "time_per_output_token": "per token (TPOT)",
    "time_to_last_token": "last token (TTLT)",
    "total": "total",
}
_BUSY: Final = 0.8
"""The share of a core above which one event loop is too slow."""
_VISIBLE: Final = 0.1
"""The share of a measured time above which the generator's own part is reported."""


def print_run(run: LoadResult) -> None:
    """Prints a description of the load, and its results."""
    click.echo(describe_load(run))
    if run.interrupted:
        click.secho("\nInterrupted; this is what was measured until then.", fg="yellow")
    for letter, side in zip("AB", run.sides, strict=False):
        _print_side(side, f"{letter}: " if len(run.sides) > 1 else "")
    if len(run.sides) > 1:
        _print_ratios(run)
    _print_overhead(run)


def _print_side(side: Side, name: str) -> None:
    answers, model = side.answers, side.model
    click.secho(f"\n{name}{brief(model.model)} on {brief(model.engine)} at {side.target}", bold=True)
    click.echo(f"{describe_throughput(side)}\n")
    client, server = client_quantiles(answers), server_quantiles(answers)
    print_table(
        [(label, *_cells(client.get(name)), *_cells(server.get(name))) for name, label in _LABELS.items()],
        headings=("times in ms", "client p50", "p90", "p99", "server p50", "p90", "p99"),
    )
    begun, complete = begun_and_complete(side)
    first = "" if begun is None else f"first token in {begun}, "
    click.echo(
        f"Within the Doherty threshold of {THRESHOLD * 1000:g} ms, measured by the client, of {len(answers)} answers: "
        f"{first}whole answer in {complete}."
    )
    _print_errors(side)


def _print_errors(side: Side) -> None:
    if counted := errors(side):
        click.echo()
        print_table(
            [(code, reason, str(count)) for code, reason, count in counted], headings=("error", "reason", "count")
        )
    turned = turned_away(side)
    if turned is None:
        click.echo("The server did not report how many requests it refused.")
    elif turned[0] or turned[1]:
        aborts = ", ".join(f"{cause} {count}" for cause, count in turned[1].items())
        click.echo(f"The server counted {turned[0]} refused, aborted: {aborts or 'none'} (of all its callers).")


def _print_ratios(run: LoadResult) -> None:
    click.secho("\nB / A, medians as the client saw them", bold=True)
    print_table(
        [(_LABELS[name], *_ratio_cells(ratio)) for name, ratio in ratios(run).items()],
        headings=("", "ratio", "95 % from", "to"),
    )
    click.secho("The interval is a bootstrap over the blocks, each prompt paired with itself.", dim=True)


def _print_overhead(run: LoadResult) -> None:
    """Prints the time that the load generator itself needed, and its share of the measured latency."""
    overhead = run.overhead
    answers = [sample for side in run.sides for sample in side.answers]
    outside = percentile((sample.outside for sample in answers if sample.outside is not None), 0.5)
    first = percentile(
        (sample.time_to_first_token for sample in answers if sample.time_to_first_token is not None), 0.5
    )
    total = percentile((sample.total for sample in answers), 0.5)
    click.secho("\nThe load generator's own part", bold=True)
    print_table(
        [
            ("CPU", f"{overhead.cpu_share:.0%} of a core, {milliseconds(overhead.cpu_per_message)} ms a message"),
            ("requests waited", f"{_spread(overhead.send_wait)} before they were sent"),
            ("messages waited", f"{_spread(overhead.loop_lag)} before they were seen"),
            ("added to a time", f"{_fine(overhead.per_time)} ms: {_shares(overhead.per_time, first, total)}"),
            ("outside the server", f"{_fine(outside)} ms: {_shares(outside, None, total)}"),
            *_late_row(run),
        ]
    )
    click.secho(
        "Added is an estimate: a request's median wait and a message's mean wait for the generator's event loop,\n"
        "and the CPU time of a message. Outside the server is the median of the client's total less the server's:\n"
        "network, gRPC on both sides and the generator together; no clock parts these.",
        dim=True,
    )
    if overhead.cpu_share > _BUSY:
        click.secho("The generator is at its limit: the times are its own as much as the server's.", fg="yellow")
    elif overhead.per_time and first and overhead.per_time > _VISIBLE * first:
        click.secho("The generator adds a significant part of the time to the first token.", fg="yellow")


def _late_row(run: LoadResult) -> list[tuple[str, str]]:
    if run.load.rate is None:
        return []
    late = quantiles(sample.late for side in run.sides for sample in side.samples)
    return [("requests made", f"{_spread(late)} after they were due, which the client's times include")]


def _shares(part: float | None, first: float | None, total: float | None) -> str:
    shares = ((part, first, "of the median TTFT"), (part, total, "of the median total"))
    texts = [f"{part / whole:.1%} {what}" for part, whole, what in shares if part is not None and whole]
    return ", ".join(texts) or "-"


def _cells(times: Quantiles | None) -> tuple[str, str, str]:
    if times is None:
        return ("-", "-", "-")
    return milliseconds(times.p50), milliseconds(times.p90), milliseconds(times.p99)


def _ratio_cells(ratio: Ratio | None) -> tuple[str, ...]:
    if ratio is None:
        return ("-", "-", "-")
    return tuple("-" if value is None else f"{value:.3f}" for value in (ratio.ratio, ratio.low, ratio.high))


def _spread(times: Quantiles) -> str:
    return f"p50 {_fine(times.p50)}, p90 {_fine(times.p90)}, p99 {_fine(times.p99)} ms"


def _fine(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.2f}"
