"""The reference benchmark: ten questions."""

from collections.abc import Sequence
from time import perf_counter
from typing import Final

import click

from doherty import Client
from doherty.cli import QUESTIONS
from doherty.cli._answer import pace, show
from doherty.cli._connect import ServerOptions
from doherty.cli._report import (
    FIGURES,
    REFERENCE_P50,
    REFERENCE_P90,
    THRESHOLD,
    THRESHOLD_FIGURES,
    Measurement,
    percentiles,
    report,
    within_threshold,
)
from doherty.cli._tables import milliseconds, print_json, print_table
from doherty.cli._terminal import brief

_WARM_UP: Final = "Hello!"
_WARM_UP_TOKENS: Final = 8

_LABELS: Final = {
    "time_to_last_token": "last token (TTLT)",
    "client_total": "client's total",
    "time_to_first_token": "first token (TTFT)",
    "time_per_output_token": "per token (TPOT)",
}


def run_reference(server: ServerOptions, max_output_tokens: int | None, *, as_json: bool) -> None:
    """Asks the ten questions one after the other, after a warm-up call, and prints the report."""
    with server.connect(retrying=False) as client:
        model = client.model()
        if not as_json:
            _print_head(f"{brief(model.model)} on {brief(model.engine)} at {server.target}", max_output_tokens)
        client.generate(_WARM_UP, max_output_tokens=_WARM_UP_TOKENS)
        measurements = [
            _ask(client, number, max_output_tokens, quiet=as_json) for number in range(1, len(QUESTIONS) + 1)
        ]
    if as_json:
        print_json(report(measurements, model, max_output_tokens))
    else:
        _print_end(measurements)


def _ask(client: Client, number: int, max_output_tokens: int | None, *, quiet: bool) -> Measurement:
    question = QUESTIONS[number - 1]
    if not quiet:
        click.secho(f"\n{number:2}. {question}", bold=True)
    started = perf_counter()
    with client.stream_generate(question, max_output_tokens=max_output_tokens) as stream:
        measured = Measurement(question, stream.result() if quiet else show(stream), perf_counter() - started)
    if not quiet:
        _print_measurement(measured)
    return measured


def _print_head(deployment: str, max_output_tokens: int | None) -> None:
    cut = f"answers cut at {max_output_tokens} tokens" if max_output_tokens else "answers as long as the server allows"
    click.echo(f"{deployment}; {len(QUESTIONS)} questions one by one, {cut}")


def _print_measurement(measured: Measurement) -> None:
    latency = measured.generation.timings.time_to_last_token
    within = within_threshold([latency]) == 1
    click.secho(f"    {milliseconds(latency)} ms to the last token", fg="green" if within else "yellow", nl=False)
    click.secho(f"  ({pace(measured.generation)}, {measured.generation.finish_reason})", dim=True)


def _print_end(measurements: Sequence[Measurement]) -> None:
    click.secho("\nTimes in ms, measured by the server except for the client's total", bold=True)
    rows = [(_LABELS[name], *map(milliseconds, values)) for name, values in percentiles(measurements).items()]
    print_table(rows, headings=("", "p50", "p90"))
    begun, complete = (within_threshold(map(FIGURES[name], measurements)) for name in THRESHOLD_FIGURES)
    click.echo(
        f"Within the Doherty threshold of {THRESHOLD * 1000:g} ms: "
        f"first token in {begun} of {len(measurements)} answers, last token in {complete}."
    )
    click.secho(
        "For orientation, the reference with another model on other hardware (LLaMA 3 8B on one H100): last token\n"
        f"p50 {REFERENCE_P50 * 1000:.2f} ms, p90 {REFERENCE_P90 * 1000:.2f} ms.",
        dim=True,
    )
