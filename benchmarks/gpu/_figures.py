"""Computes the figures of a cell from its records, and prints them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from _generators import Measured
from _sides import ROWS

_HEADINGS = (
    "side",
    "requests",
    "TTFT p50 / p90 / p99",
    "TPOT p50 / p99",
    "last token p50 / p90 / p99",
    "gap p99",
    "tokens/s",
    "of in-process",
    "server CPU us/token",
)
_MS = 1e3
_US = 1e6


@dataclass(frozen=True, slots=True)
class Figures:
    """One row of a cell; times in milliseconds, CPU time in microseconds per token."""

    driver: str
    requests: int
    ttft: tuple[float, float, float]
    """p50, p90 and p99, as everywhere below."""
    tpot: tuple[float, float, float]
    ttlt: tuple[float, float, float]
    gap: tuple[float, float, float]
    tokens_per_second: float
    server_cpu: float | None
    """CPU time of the server's own process."""
    engine_cpu: float
    """CPU time of its worker processes."""


def percentile(values: Iterable[float], share: float) -> float:
    """Returns the smallest value that is not exceeded by a `share` of all values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def figures(driver: str, parts: Sequence[Measured], tokens: int) -> Figures:
    """Returns the figures of all rounds of a cell."""
    records = list(chain.from_iterable(part.records for part in parts))
    count = sum(part.tokens for part in parts)
    server = [part.server_cpu for part in parts if part.server_cpu is not None]
    return Figures(
        driver=driver,
        requests=len(records),
        ttft=_percentiles(record.first for record in records),
        tpot=_percentiles((record.last - record.first) / (tokens - 1) for record in records),
        ttlt=_percentiles(record.last for record in records),
        gap=_percentiles(chain.from_iterable(record.gaps for record in records)),
        tokens_per_second=count / sum(part.seconds for part in parts),
        server_cpu=sum(server) / count * _US if server else None,
        engine_cpu=sum(part.engine_cpu for part in parts) / count * _US,
    )


def table(name: str, rows: Sequence[Figures]) -> str:
    """Returns the table of a cell, in Markdown."""
    lines = [
        f"**{name}** (streams x tokens; ms unless said)\n",
        f"| {' | '.join(_HEADINGS)} |",
        "|---" * len(_HEADINGS) + "|",
    ]
    base = rows[0].tokens_per_second
    for row in sorted(rows, key=lambda measured: list(ROWS).index(measured.driver)):
        cpu = "-" if row.server_cpu is None else f"{row.server_cpu:.0f}"
        lines.append(
            f"| {ROWS[row.driver]} | {row.requests} | {_join(row.ttft, 1)} | {row.tpot[0]:.3f} / {row.tpot[2]:.3f} "
            f"| {_join(row.ttlt, 0)} | {row.gap[2]:.2f} | {row.tokens_per_second:,.0f} "
            f"| {row.tokens_per_second / base:.3f} | {cpu} |"
        )
    return "\n".join(lines) + "\n"


def _percentiles(seconds: Iterable[float]) -> tuple[float, float, float]:
    values = [value * _MS for value in seconds]
    return percentile(values, 0.5), percentile(values, 0.9), percentile(values, 0.99)


def _join(values: Sequence[float], digits: int) -> str:
    return " / ".join(f"{value:.{digits}f}" for value in values)
