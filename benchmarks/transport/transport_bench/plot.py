"""Plots the cost and the added latency of a token against the load."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

from transport_bench.campaign import Window
from transport_bench.loads import LOADS
from transport_bench.ratios import interval
from transport_bench.report import TITLES
from transport_bench.rows import MAIN_ROWS, ROWS

_FIGURES = ("cpu_per_token", "latency_p99")
_LOADS = ("1x200", "8x200", "32x200", "64x200", "64x333", "64x667")


def draw(windows: Sequence[Window], path: Path) -> None:
    """Writes an SVG with a panel for each figure. Writes nothing if none of its loads was measured."""
    if not any(window.load in _LOADS for window in windows):
        return
    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the choice of how it draws

    figure, panels = plt.subplots(1, len(_FIGURES), figsize=(11, 4.5), layout="constrained")
    asked = [LOADS[load].streams * LOADS[load].pace for load in _LOADS]
    for panel, name in zip(panels, _FIGURES, strict=True):
        for row in MAIN_ROWS:
            values = [_median(windows, load, row, name) for load in _LOADS]
            panel.plot(asked, values, marker="o", label=ROWS[row].title)
        panel.set(xscale="log", yscale="log", xlabel="streams x tokens per second", ylabel=TITLES[name])
        panel.set_xticks(asked, labels=_LOADS, rotation=30)
        panel.minorticks_off()
        panel.yaxis.set_major_formatter("{x:g}")
        panel.grid(visible=True, which="major", alpha=0.3)
    panels[0].legend()
    figure.savefig(path)
    plt.close(figure)


def _median(windows: Sequence[Window], load: str, row: str, figure: str) -> float:
    """Returns NaN for a missing value, which is not drawn."""
    return interval(
        [getattr(window.figures, figure) for window in windows if window.load == load and window.row == row]
    ).median
