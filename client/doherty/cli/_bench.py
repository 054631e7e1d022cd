"""The command `doherty bench`."""

import asyncio
from pathlib import Path
from typing import Any, Final

import click

from doherty.cli import QUESTIONS
from doherty.cli._connect import ServerCommand, ServerOptions, failure, reporting_failures, server_options
from doherty.cli._exit import INTERRUPTED, Missing
from doherty.cli._load._json import SCHEMA, run_as_json
from doherty.cli._load._progress import progress
from doherty.cli._load._prompts import read_prompts
from doherty.cli._load._run import LoadOptions, LoadResult, run_load
from doherty.cli._load._show import print_run
from doherty.cli._reference import run_reference
from doherty.cli._tables import print_json
from doherty_extras import install_command

_REQUESTS: Final = 100
"""The default of --requests."""


def _check_plot(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    """Checks before the load whether the plot can be drawn."""
    if value is None:
        return None
    try:
        from doherty.cli._load._plot import picture_kinds  # noqa: PLC0415 - it needs an extra
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        raise Missing(f"'--plot' needs matplotlib: {install_command('plot')}") from error
    if value.suffix[1:].lower() not in picture_kinds():
        raise click.BadParameter(f"{value.name} is none of {', '.join(picture_kinds())}", ctx=context, param=parameter)
    if not value.parent.is_dir():
        raise click.BadParameter(f"there is no folder {value.parent}", ctx=context, param=parameter)
    return value


_POSITIVE: Final = click.IntRange(min=1)
_SPAN: Final = click.FloatRange(min=0, min_open=True)


_EXAMPLES: Final = """\
\b
Examples:
  doherty bench
  doherty bench --concurrency 16 --requests 500
  doherty bench --rate 20 --duration 60 --prompts real.txt --plot times.png
  doherty bench --concurrency 8 --compare old:50051 new:50051 --json
"""


@click.command(cls=ServerCommand, epilog=f"{_EXAMPLES}\n{SCHEMA}")
@click.option("--concurrency", type=_POSITIVE, metavar="N", help="Load: keep N requests in flight (a closed loop).")
@click.option(
    "--rate",
    type=_SPAN,
    metavar="R",
    help="Load: send R requests per second on average, like independent callers (an open loop, Poisson).",
)
@click.option("--requests", type=_POSITIVE, metavar="N", help=f"Load: send N requests. The default is {_REQUESTS}.")
@click.option("--duration", type=_SPAN, metavar="SECONDS", help="Load: send requests for this long.")
@click.option(
    "--prompts",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help='Load: a file with one prompt per line, or a .jsonl file of objects with "prompt" or "messages".',
)
@click.option(
    "--warm-up",
    type=click.IntRange(min=0),
    metavar="N",
    help="Load: unmeasured requests at the start. The default is 1.",
)
@click.option("--unary", is_flag=True, help="Load: request whole answers, not streams; without the client's TTFT.")
@click.option("--seed", type=int, metavar="N", help="Load: the random seed of --rate. The default is 0.")
@click.option("--compare", nargs=2, metavar="A B", help="Load: send each request to two servers, and compare them.")
@click.option("--block", type=_POSITIVE, metavar="N", help="With --compare: send N requests to each in turn.")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_check_plot,
    help="Load: plot the times to this file (.png, .svg or .pdf).",
)
@click.option("--max-output-tokens", type=_POSITIVE, help="Maximum length of each answer. The default is the server's.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end, times in seconds.")
@server_options(timeout=60)
@click.pass_context
def bench(context: click.Context, /, *, server: ServerOptions, max_output_tokens: int | None, **flags: Any) -> None:
    """Run the reference benchmark, or a load of your own.

    Without any of the options marked Load, ten questions are asked one after the other, after a warm-up call, with the
    deployment's sampling. The percentiles are those of the server's time to last token, by the reference's formula: the
    5th and the 9th of the ten values.

    A load shows the times measured by the client and by the server. Times start at the moment at which a request was
    due, even if the generator or the connection was late (no coordinated omission). Percentiles use the nearest rank of
    all received answers. The exit code is 0 if there was at least one answer.
    """
    as_json = flags.pop("as_json")
    if all(value is None or value is False for value in flags.values()):
        run_reference(server, max_output_tokens, as_json=as_json)
        return
    plot = flags.pop("plot")
    targets = flags.pop("compare") or (server.target,)
    load = _load(max_output_tokens, comparing=len(targets) > 1, **flags)
    run = _make(server, targets, load)
    if as_json:
        print_json(run_as_json(run))
    else:
        print_run(run)
    if plot is not None:
        _plot(run, plot)
    _end(context, run)


def _load(  # noqa: PLR0913 - the options
    max_output_tokens: int | None,
    *,
    comparing: bool,
    concurrency: int | None,
    rate: float | None,
    requests: int | None,
    duration: float | None,
    prompts: Path | None,
    warm_up: int | None,
    unary: bool,
    seed: int | None,
    block: int | None,
) -> LoadOptions:
    if rate is not None and concurrency is not None:
        raise click.UsageError("--rate (an open loop) and --concurrency (a closed loop) cannot be combined.")
    if seed is not None and rate is None:
        raise click.UsageError("--seed needs --rate, whose arrivals it determines.")
    if block is not None and not comparing:
        raise click.UsageError("--block is of --compare.")
    try:
        chosen = QUESTIONS if prompts is None else read_prompts(prompts)
    except (OSError, ValueError) as error:
        raise click.UsageError(f"The prompts cannot be read: {error}.") from error
    return LoadOptions(
        prompts=chosen,
        concurrency=concurrency or 1,
        rate=rate,
        requests=_REQUESTS if requests is None and duration is None else requests,
        duration=duration,
        block=(block or concurrency or 1) if comparing else None,
        warm_up=1 if warm_up is None else warm_up,
        seed=seed or 0,
        streaming=not unary,
        max_output_tokens=max_output_tokens,
    )


def _make(server: ServerOptions, targets: tuple[str, ...], load: LoadOptions) -> LoadResult:
    with reporting_failures(), progress(load, len(targets)) as on_sample:
        return asyncio.run(run_load([server.connect_async(target) for target in targets], load, on_sample))


def _plot(run: LoadResult, path: Path) -> None:
    from doherty.cli._load._plot import plot  # noqa: PLC0415 - an extra

    try:
        plot(run, path)
    except OSError as error:
        raise click.UsageError(f"The picture cannot be drawn: {error}.") from error


def _end(context: click.Context, run: LoadResult) -> None:
    """Fails with the first error if a server gave no answer at all."""
    for side in run.sides:
        if side.first_error is not None and not side.answers:
            raise failure(side.first_error)
    if run.interrupted:
        context.exit(INTERRUPTED)
