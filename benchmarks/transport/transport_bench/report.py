"""Prints the tables: the figures of each server, and the ratios with their targets."""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from transport_bench.campaign import Window
from transport_bench.loads import LOADS
from transport_bench.ratios import Ratio, interval, ratio
from transport_bench.rows import BEFORE, ENGINE_ROW, OURS, ROWS
from transport_bench.window import NO_FIGURES, Figures

TITLES = {
    "cpu_per_token": "CPU us per token",
    "cpu_per_request": "CPU us per answer",
    "both_cpu_per_token": "CPU us per token, both sides",
    "latency_p50": "added p50, ms",
    "latency_p99": "added p99, ms",
    "ttft_p50": "added TTFT p50, ms",
    "ttft_p99": "added TTFT p99, ms",
    "tokens_per_second": "tokens per second",
    "requests_per_second": "answers per second",
    "delivered": "delivered share",
    "server_load": "server's core",
    "caller_load": "caller's core",
    "other_load": "others' cores",
}
LESS_ENGINE = ", less the engine"
"""The suffix of a row's name and title if the engine's share is subtracted."""
_ALWAYS = ("server_load", "caller_load", "other_load")


@dataclass(frozen=True)
class Target:
    """A target for the ratio of two rows at one load."""

    load: str
    row: str
    against: str
    figure: str
    sign: str
    bound: float
    is_aim: bool = False
    """Whether the target is only aimed at, not required."""
    less_engine: bool = False
    """Whether the engine's share is subtracted from the figure of `row`."""

    def is_met(self, measured: Ratio) -> bool:
        """Whether the whole interval is on the right side of the target."""
        compare: Callable[[float, float], bool] = _SIGNS[self.sign]
        return compare(measured.high if self.sign in "<=" else measured.low, self.bound)


_SIGNS: dict[str, Callable[[float, float], bool]] = {"<": operator.lt, "<=": operator.le, ">=": operator.ge}

TARGETS = (
    Target("32x200", "stream", "naive", "cpu_per_token", "<=", 0.8),
    Target("32x200", "stream", "sse", "cpu_per_token", "<=", 1.1),
    Target("32x200", "stream", "sse", "cpu_per_token", "<=", 1.05, is_aim=True),
    Target("unary", "stream", "naive", "requests_per_second", ">=", 0.78),
    Target("burst", "stream", "naive", "ttft_p50", "<=", 0.9),
    Target("32x200", "multiplex", "naive", "cpu_per_token", "<=", 0.5),
    Target("32x200", "http2", "naive", "cpu_per_token", "<=", 0.6),
    Target("32x200", "http2", "sse", "cpu_per_token", "<=", 1.0),
    Target("32x200", "http2", "vllm-rs", "cpu_per_token", "<=", 1.5, is_aim=True),
    Target("unary", "http2", "naive", "requests_per_second", ">=", 1.8),
    Target("burst", "http2", "naive", "ttft_p50", "<=", 0.35),
    Target("64x333", "http2-multiplex", "naive", "cpu_per_token", "<=", 0.35),
    Target("64x333", "http2-multiplex", "callback", "cpu_per_token", "<=", 1.0),
    Target("64x333", "multiplex", "vllm-rs-shared", "cpu_per_token", "<=", 1.3),
    Target("64x333", "multiplex", "vllm-rs-shared", "cpu_per_token", "<=", 1.0, less_engine=True),
)


def less_engine(windows: Sequence[Window]) -> list[Window]:
    """Returns our rows minus the CPU time of the row `engine` in the same round, as additional rows.

    These are the rows whose server contains the engine, and whose caller is the load generator.
    """
    engine = {(window.load, window.round): window.figures for window in windows if window.row == ENGINE_ROW}
    return [
        replace(window, row=window.row + LESS_ENGINE, figures=_less(window.figures, engine[window.load, window.round]))
        for window in windows
        if _is_ours(window.row) and (window.load, window.round) in engine
    ]


def _is_ours(row: str) -> bool:
    entry = ROWS[row.rstrip("'")]
    return entry.kind in OURS and not entry.with_sdk


def _less(figures: Figures, engine: Figures) -> Figures:
    return replace(
        NO_FIGURES,
        cpu_per_token=figures.cpu_per_token - engine.cpu_per_token,
        cpu_per_request=figures.cpu_per_request - engine.cpu_per_request,
    )


def figures_table(load: str, windows: Sequence[Window]) -> str:
    """Returns a table with the median of each figure of a load, by server."""
    names = (*LOADS[load].figures, *_ALWAYS)
    lines = [
        f"\n{LOADS[load].title}, {max(window.round for window in windows) + 1} windows each, medians\n",
        f"| server | {' | '.join(TITLES[name] for name in names)} |",
        f"|---|{'---|' * len(names)}",
    ]
    for row in dict.fromkeys(window.row for window in windows):
        values = [_number(interval(_values(windows, load, row, name)).median) for name in names]
        lines.append(f"| {_title(row, load)} | {' | '.join(values)} |")
    return "\n".join(lines)


def targets_table(windows: Sequence[Window]) -> str:
    """Returns a table of the targets, the results, and the results of the older checkout, if it was measured."""
    lines = [
        "\n| load | server | compared with | figure | target | median | 95 % interval | | before |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for target in TARGETS:
        measured = _found(target, windows, target.row)
        if measured is not None:
            before = _found(target, windows, target.row + BEFORE)
            lines.append(_line(target, measured, before))
    return "\n".join(lines)


def _found(target: Target, windows: Sequence[Window], row: str) -> Ratio | None:
    """Returns the ratio of a target, for a row; None if one of the two rows was not measured."""
    own = _values(windows, target.load, row + LESS_ENGINE * target.less_engine, target.figure)
    others = _values(windows, target.load, target.against, target.figure)
    return ratio(own, others) if own and others else None


def against_first(load: str, windows: Sequence[Window]) -> str:
    """Returns a table with the ratios of all rows to the first one."""
    rows = list(dict.fromkeys(window.row for window in windows))
    names = LOADS[load].figures
    lines = [f"\n| as a ratio to {_title(rows[0], load)} | {' | '.join(TITLES[name] for name in names)} |"]
    lines.append(f"|---|{'---|' * len(names)}")
    for row in rows[1:]:
        cells = [
            _interval(ratio(_values(windows, load, row, name), _values(windows, load, rows[0], name))) for name in names
        ]
        lines.append(f"| {_title(row, load)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _line(target: Target, measured: Ratio, before: Ratio | None) -> str:
    verdict = "met" if target.is_met(measured) else "MISSED"
    if target.is_aim:
        verdict = "aim met" if target.is_met(measured) else "aim missed"
    cells = [
        LOADS[target.load].name,
        _title(target.row + LESS_ENGINE * target.less_engine, target.load),
        _title(target.against, target.load),
        TITLES[target.figure],
        f"{target.sign} {target.bound:g}",
        f"{measured.median:.3f}",
        _range(measured),
        verdict,
        f"{before.median:.3f}" if before else "",
    ]
    return f"| {' | '.join(cells)} |"


def _interval(measured: Ratio) -> str:
    return f"{measured.median:.3f} ({_range(measured)})"


def _range(measured: Ratio) -> str:
    return "too few windows" if math.isinf(measured.low) else f"{measured.low:.3f} to {measured.high:.3f}"


def _values(windows: Sequence[Window], load: str, row: str, figure: str) -> list[float]:
    """Returns a figure of a row, by round."""
    mine = [window for window in windows if window.load == load and window.row == row]
    return [getattr(window.figures, figure) for window in sorted(mine, key=operator.attrgetter("round"))]


def _title(row: str, load: str) -> str:
    name = row.removesuffix(LESS_ENGINE).rstrip("'")
    title = (LOADS[load].whole and ROWS[name].whole_title) or ROWS[name].title
    return title + row[len(name) :]


def _number(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits
