"""The summary of a load."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from doherty import Quantiles, Timings, __version__
from doherty.cli._load._run import LoadResult, Side
from doherty.cli._load._sample import Sample
from doherty.cli._load._statistics import Ratio, quantiles, ratio_of_medians
from doherty.cli._report import within_threshold
from doherty.cli._trend import was_restarted

CLIENT_FIGURES: Final[dict[str, Callable[[Sample], float | None]]] = {
    "time_to_first_token": lambda sample: sample.time_to_first_token,
    "time_per_output_token": lambda sample: sample.time_per_output_token,
    "time_to_last_token": lambda sample: sample.time_to_last_token,
    "total": lambda sample: sample.total,
}
"""The times of an answer that the client measures."""

SERVER_FIGURES: Final[dict[str, Callable[[Timings], float | None]]] = {
    "queue": lambda timings: timings.queue,
    "time_to_first_token": lambda timings: timings.time_to_first_token,
    "time_per_output_token": lambda timings: timings.time_per_output_token,
    "time_to_last_token": lambda timings: timings.time_to_last_token,
    "total": lambda timings: timings.total,
}
"""The times of an answer that the server measures."""

ITL: Final = "inter_token_latency"


def client_quantiles(samples: Iterable[Sample]) -> dict[str, Quantiles]:
    """Returns the quantiles of the client's times. Those of the inter-token latency cover all gaps of all answers."""
    answers = list(samples)
    times = {name: quantiles(map(figure, answers)) for name, figure in CLIENT_FIGURES.items()}
    return {**times, ITL: quantiles(gap for sample in answers for gap in sample.gaps)}


def server_quantiles(samples: Iterable[Sample]) -> dict[str, Quantiles]:
    """Returns the quantiles of the server's times for the same answers."""
    timings = [sample.server for sample in samples if sample.server is not None]
    return {name: quantiles(map(figure, timings)) for name, figure in SERVER_FIGURES.items()}


def errors(side: Side) -> list[tuple[str, str, int]]:
    """Returns code, reason and number of the failures, the most frequent first."""
    counted = Counter(sample.failure for sample in side.samples if sample.failure is not None)
    return [(code, reason, number) for (code, reason), number in counted.most_common()]


def begun_and_complete(side: Side) -> tuple[int | None, int]:
    """Returns the numbers of answers that began, and that were complete, within the threshold, measured by the client.

    The first number is None for unary calls, because the client cannot see when their answers begin.
    """
    begun = within_threshold(sample.time_to_first_token for sample in side.answers)
    return begun if side.asker.streaming else None, within_threshold(sample.total for sample in side.answers)


def turned_away(side: Side) -> tuple[int, dict[str, int]] | None:
    """Returns the numbers of refused and (by cause) aborted requests during the load; None if the server reports none.

    The numbers include all callers. If the server was restarted, they begin at the restart.
    """
    before, after = side.before, side.after
    if before is None or after is None:
        return None
    if was_restarted(before, after, side.seconds):
        return after.refusals, dict(after.aborts)
    aborts = {cause: number - before.aborts.get(cause, 0) for cause, number in after.aborts.items()}
    return after.refusals - before.refusals, {cause: number for cause, number in aborts.items() if number}


def throughput(side: Side) -> tuple[float, float]:
    """Returns answers per second and tokens per second."""
    if not side.seconds:
        return 0.0, 0.0
    return len(side.answers) / side.seconds, sum(sample.output_tokens for sample in side.answers) / side.seconds


def describe_load(run: LoadResult) -> str:
    """Describes the load on one line: the requests, the date, and the version of this package."""
    load = run.load
    arrivals = f"closed loop of {load.concurrency}" if load.rate is None else f"open loop, {load.rate:g} requests/s"
    amount = [f"{load.requests} requests" if load.requests else "", f"{load.duration:g} s" if load.duration else ""]
    cut = f"cut at {load.max_output_tokens} tokens" if load.max_output_tokens else "as long as the server allows"
    blocks = f", in blocks of {load.block} in turn" if len(run.sides) > 1 else ""
    return (
        f"{arrivals}, {' or '.join(filter(None, amount))}{blocks}, {'streaming' if load.streaming else 'unary'}, "
        f"answers {cut}; {run.begun:%Y-%m-%d %H:%M}, doherty {__version__}"
    )


def describe_side(side: Side) -> str:
    """Describes a server and its throughput on one line."""
    model = side.model
    server = f"{model.model} on {model.engine} {model.engine_version}, server {model.server_version}"
    return f"{side.target}: {server}; {describe_throughput(side)}"


def describe_throughput(side: Side) -> str:
    """Describes the number of answers and the throughput."""
    answers_per_second, tokens_per_second = throughput(side)
    return (
        f"{len(side.answers)} of {len(side.samples)} requests answered in {side.seconds:.1f} s: "
        f"{answers_per_second:.1f} answers/s, {tokens_per_second:.0f} tokens/s"
    )


def ratios(run: LoadResult) -> dict[str, Ratio | None]:
    """Returns B's median divided by A's for each of the client's times, over the requests that both answered."""
    a, b = run.sides
    figures = [{sample.number: sample for sample in side.answers} for side in (a, b)]
    blocks = [[sample.number for sample in block] for block in a.blocks]

    def ratio(figure: Callable[[Sample], float | None]) -> Ratio | None:
        pairs = [
            [
                (at_a, at_b)
                for number in block
                if number in figures[0]
                and number in figures[1]
                and (at_a := figure(figures[0][number])) is not None
                and (at_b := figure(figures[1][number])) is not None
            ]
            for block in blocks
        ]
        return ratio_of_medians([block for block in pairs if block], run.load.seed)

    return {name: ratio(figure) for name, figure in CLIENT_FIGURES.items()}
