"""Plots a load."""

from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from doherty.cli._load._run import LoadResult, Side
from doherty.cli._load._statistics import percentile
from doherty.cli._load._summary import describe_load, describe_side
from doherty.cli._report import THRESHOLD
from doherty.cli._terminal import brief

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS: Final = ("tab:blue", "tab:orange")
_MARKED: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
_MAX_NAME_CHARACTERS: Final = 40
_DECADE: Final = 10


def picture_kinds() -> tuple[str, ...]:
    """Returns the supported suffixes of plot files."""
    return tuple(sorted(FigureCanvasAgg.get_supported_filetypes()))


def plot(run: LoadResult, path: Path) -> None:
    """Plots the distribution of the times, and their course during the load.

    Args:
        run: The results of the load.
        path: The plot's file. Its suffix determines the format.

    Raises:
        OSError: It cannot be written.
    """
    draw(run).savefig(path)


def draw(run: LoadResult) -> Figure:
    """Returns the plot of a load."""
    figure = Figure(figsize=(13, 11), layout="constrained")
    figure.suptitle(_title(run), fontsize="medium")
    (first, between), (total, over_time) = figure.subplots(2, 2)
    for axes, title, of in (
        (first, "first token (TTFT)", "answers"),
        (between, "between messages (ITL)", "gaps"),
        (total, "total", "answers"),
    ):
        axes.set(title=title, xlabel="ms", ylabel=f"share of {of} that took at most so long", ylim=(0, 1.03))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    over_time.set(title="total over the load", xlabel="due after, s", ylabel="ms")
    for place, side in enumerate(run.sides):
        _draw_side(side, _name(run, place), place, (first, between, total, over_time))
    for axes in (first, total):
        axes.axvline(THRESHOLD * 1000, color="tab:red", linewidth=0.8, label=f"{THRESHOLD * 1000:g} ms")
    for axes in (first, between, total):
        _scale(axes)
    longest = max((sample.total for side in run.sides for sample in side.samples), default=1.0)
    over_time.set_ylim(0, 1.05 * longest * 1000)
    for axes in (first, between, total, over_time):
        axes.grid(visible=True, which="both", alpha=0.25)
        if axes.has_data():
            # Below the picture, where it covers no point.
            axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.12))
    return figure


def _title(run: LoadResult) -> str:
    return "\n".join((describe_load(run), *(brief(describe_side(side)) for side in run.sides)))


def _name(run: LoadResult, place: int) -> str:
    """Returns the name of a side in the legends; "" if there is only one."""
    targets = [side.target for side in run.sides]
    if len(targets) == 1:
        return ""
    name = targets[place][:_MAX_NAME_CHARACTERS]
    return f"{name}, " if len(set(targets)) == len(targets) else f"{'AB'[place]} {name}, "


def _draw_side(side: Side, name: str, place: int, axes: "tuple[Axes, Axes, Axes, Axes]") -> None:
    first, between, total, over_time = axes
    answers = side.answers
    server_timings = [sample.server for sample in answers if sample.server is not None]
    _draw(first, (sample.time_to_first_token for sample in answers), f"{name}client", place)
    _draw(first, (timings.time_to_first_token for timings in server_timings), f"{name}server", place, server=True)
    _draw(between, (gap for sample in answers for gap in sample.gaps), f"{name}client", place)
    _draw(total, (sample.total for sample in answers), f"{name}client", place)
    _draw(total, (timings.total for timings in server_timings), f"{name}server", place, server=True)
    begin = min((sample.due for sample in side.samples), default=0.0)
    for samples, marker, label in (
        (answers, "o", f"{name}client"),
        ([sample for sample in side.samples if sample.failure is not None], "x", f"{name}failed"),
    ):
        if samples:
            over_time.scatter(
                [sample.due - begin for sample in samples],
                [sample.total * 1000 for sample in samples],
                s=12,
                marker=marker,
                color=_COLOURS[place],
                label=label,
                clip_on=False,
            )


def _draw(axes: "Axes", values: Iterable[float | None], name: str, place: int, *, server: bool = False) -> None:
    """Draws the share of the values that are at most as large as each, and marks quantiles."""
    times = array("d", (value * 1000 for value in values if value is not None))
    marks = {mark: time for mark, share in _MARKED.items() if (time := percentile(times, share)) is not None}
    if not marks:
        return
    label = f"{name}: {', '.join(f'{mark} {_plain(time)}' for mark, time in marks.items())} ms"
    # First tokens may come after 5 ms, and the threshold is 400 ms.
    axes.set_xscale("log")
    axes.ecdf(times, label=label, color=_COLOURS[place], linestyle="--" if server else "-")
    axes.plot(list(marks.values()), list(_MARKED.values()), "o", markersize=4, color=_COLOURS[place])


def _scale(axes: "Axes") -> None:
    """Makes the ticks plain numbers, and names the quantiles at the right."""
    if axes.get_xscale() != "log":
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center")
        return
    right = axes.secondary_yaxis("right")
    right.set_yticks(list(_MARKED.values()), list(_MARKED))
    low, high = axes.get_xlim()
    is_wide = high / low > _DECADE
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if is_wide else MaxNLocator(8, steps=(1, 2, 5, 10)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _plain(value: float) -> str:
    """Formats a number without an exponent, with about three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits
