"""The tables: what each server cost, and whether the ratios are what they should be."""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transport_bench.campaign import Window
from transport_bench.loads import LOADS
from transport_bench.ratios import Ratio, interval, ratio
from transport_bench.rows import ROWS

TITLES = {
    "cpu_per_token": "CPU us per token",
    "cpu_per_request": "CPU us per answer",
    "both_cpu_per_token": "CPU us per token, both sides",
    "latency_p50": "added p50, ms",
    "latency_p99": "added p99, ms",
    "ttft_p50": "added TTFT p50, ms",
    "ttft_p99": "added TTFT p99, ms",
    "tokens_per_second": "tokens a second",
    "requests_per_second": "answers a second",
    "delivered": "delivered share",
    "server_load": "server's core",
    "caller_load": "caller's core",
    "other_load": "others' cores",
}
_ALWAYS = ("server_load", "caller_load", "other_load")
_ALL = 0.99
"""The share that counts as all: the borders of a window cut off a step or two."""


@dataclass(frozen=True)
class Target:
    """A ratio of two rows at one load, and what it is to be."""

    load: str
    row: str
    against: str | None
    """None stands for the figure itself."""
    figure: str
    sign: str
    bound: float
    is_aim: bool = False
    """Whether it is reported and aimed at, but not required."""

    def is_met(self, found: Ratio) -> bool:
        """Whether the whole interval lies on the right side."""
        compare: Callable[[float, float], bool] = _SIGNS[self.sign]
        return compare(found.high if self.sign in "<=" else found.low, self.bound)


_SIGNS: dict[str, Callable[[float, float], bool]] = {"<": operator.lt, "<=": operator.le, ">=": operator.ge}

TARGETS = (
    Target("32x200", "stream", "naive", "cpu_per_token", "<", 1.0),
    Target("32x200", "stream", "naive", "latency_p99", "<", 1.0),
    Target("32x200", "stream", "sse", "cpu_per_token", "<", 1.0),
    Target("32x200", "stream", "sse", "latency_p99", "<=", 0.9),
    Target("32x200", "stream", "sse", "ttft_p50", "<=", 0.7),
    Target("64x333", "stream", None, "delivered", ">=", _ALL),
    Target("64x333", "stream", "naive", "latency_p99", "<=", 0.15),
    Target("32x200", "multiplex", "naive", "cpu_per_token", "<=", 0.45),
    Target("32x200", "multiplex", "naive", "latency_p99", "<=", 0.5),
    Target("64x333", "multiplex", "callback", "cpu_per_token", "<=", 1.1, is_aim=True),
    Target("64x333", "multiplex", "callback", "latency_p99", "<=", 1.3, is_aim=True),
    Target("32x200", "sdk-multiplex", "sdk", "both_cpu_per_token", "<=", 0.6),
    Target("32x200", "sdk-multiplex", "sdk", "latency_p99", "<=", 0.7),
    Target("64x667", "stream", None, "delivered", ">=", _ALL, is_aim=True),
    Target("64x667", "stream", "naive", "latency_p99", "<=", 0.15, is_aim=True),
    Target("unary", "stream", "naive", "requests_per_second", ">=", 1.0),
    Target("unary", "multiplex", "naive", "requests_per_second", ">=", 2.0),
    Target("32x200", "stream", "stream-bare", "cpu_per_token", "<=", 1.1),
    Target("32x200", "multiplex", "multiplex-bare", "cpu_per_token", "<=", 1.1),
)


def figures_table(load: str, windows: Sequence[Window]) -> str:
    """The median of each figure that a load is about, server by server."""
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
    """What is to be reached, and what was."""
    lines = [
        "\n| load | server | against | figure | to reach | median | 95 % interval | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for target in TARGETS:
        own = _values(windows, target.load, target.row, target.figure)
        others = _values(windows, target.load, target.against, target.figure) if target.against else own
        if not own or not others:
            continue
        found = ratio(own, others) if target.against else interval(own)
        lines.append(_line(target, found))
    return "\n".join(lines)


def against_first(load: str, windows: Sequence[Window]) -> str:
    """Every row's ratios to the first one, for looking at things that no target is about."""
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


def _line(target: Target, found: Ratio) -> str:
    against = _title(target.against, target.load) if target.against else ""
    verdict = "met" if target.is_met(found) else "MISSED"
    if target.is_aim:
        verdict = "aim met" if target.is_met(found) else "aim missed"
    cells = [
        LOADS[target.load].name,
        _title(target.row, target.load),
        against,
        TITLES[target.figure],
        f"{target.sign} {target.bound:g}",
        f"{found.median:.3f}",
        _range(found),
        verdict,
    ]
    return f"| {' | '.join(cells)} |"


def _interval(found: Ratio) -> str:
    return f"{found.median:.3f} ({_range(found)})"


def _range(found: Ratio) -> str:
    return "too few windows" if math.isinf(found.low) else f"{found.low:.3f} to {found.high:.3f}"


def _values(windows: Sequence[Window], load: str, row: str | None, figure: str) -> list[float]:
    """A figure of a row, round by round."""
    mine = [window for window in windows if window.load == load and window.row == row]
    return [getattr(window.figures, figure) for window in sorted(mine, key=operator.attrgetter("round"))]


def _title(row: str, load: str) -> str:
    name = row.rstrip("'")
    title = (LOADS[load].whole and ROWS[name].whole_title) or ROWS[name].title
    return title + row[len(name) :]


def _number(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits
