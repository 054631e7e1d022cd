"""A load as a picture."""

from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from doherty.cli._load._run import LoadResult, Side
from doherty.cli._report import THRESHOLD

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS: Final = ("tab:blue", "tab:orange")


def picture_kinds() -> tuple[str, ...]:
    """The suffixes of the pictures that can be drawn."""
    return tuple(sorted(FigureCanvasAgg.get_supported_filetypes()))


def plot(run: LoadResult, path: Path) -> None:
    """Draws how the times are distributed, and how they went over the load.

    Args:
        run: What was measured.
        path: The picture; its suffix says of which kind.

    Raises:
        OSError: It cannot be written.
    """
    figure = Figure(figsize=(12, 8), layout="constrained")
    figure.suptitle(" and ".join(f"{side.model.model} on {side.model.engine} at {side.target}" for side in run.sides))
    (first, between), (total, over_time) = figure.subplots(2, 2)
    _label(first, "first token (TTFT)")
    _label(between, "between messages (ITL)")
    _label(total, "total")
    over_time.set(title="total over the load", xlabel="due after, s", ylabel="ms")
    for letter, colour, side in zip("AB", _COLOURS, run.sides, strict=False):
        name = f"{letter}, " if len(run.sides) > 1 else ""
        _draw_side(side, name, colour, (first, between, total, over_time))
    for axes in (first, total):
        axes.axvline(THRESHOLD * 1000, color="tab:red", linewidth=0.8, label=f"{THRESHOLD * 1000:g} ms")
    for axes in (first, between, total, over_time):
        axes.set_ylim(bottom=0)
        if axes.has_data():
            axes.legend(fontsize="small")
    figure.savefig(path)


def _label(axes: "Axes", title: str) -> None:
    axes.set(title=title, xlabel="ms", ylabel="share of answers at most")


def _draw_side(side: Side, name: str, colour: str, axes: "tuple[Axes, Axes, Axes, Axes]") -> None:
    first, between, total, over_time = axes
    answers = side.answers
    server_timings = [sample.server for sample in answers if sample.server is not None]
    _draw(first, (sample.time_to_first_token for sample in answers), f"{name}client", colour)
    _draw(first, (timings.time_to_first_token for timings in server_timings), f"{name}server", colour, dashed=True)
    _draw(between, (gap for sample in answers for gap in sample.gaps), f"{name}client", colour)
    _draw(total, (sample.total for sample in answers), f"{name}client", colour)
    _draw(total, (timings.total for timings in server_timings), f"{name}server", colour, dashed=True)
    begin = min((sample.due for sample in side.samples), default=0.0)
    at = [sample.due - begin for sample in answers]
    over_time.scatter(at, [sample.total * 1000 for sample in answers], s=6, color=colour, label=f"{name}client")


def _draw(axes: "Axes", values: Iterable[float | None], label: str, colour: str, *, dashed: bool = False) -> None:
    """Draws the share of the values that are at most as large as each."""
    times = array("d", (value * 1000 for value in values if value is not None))
    if times:
        # A threshold of 400 ms stands beside first tokens of 5.
        axes.set_xscale("log")
        axes.ecdf(times, label=label, color=colour, linestyle="--" if dashed else "-")
