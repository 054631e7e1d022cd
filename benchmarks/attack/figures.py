"""The figures of a measured attack, and the file that keeps them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Figures:
    """One run of one attack. Times are in milliseconds, memory in MiB; a time is None where nothing was measured."""

    gap_without: float
    """The longest gap in the honest stream before the attack."""
    gap_with: float
    """The longest gap in the honest stream during the attack."""
    main_thread_ran: float
    """How long the server's main thread ran in that gap."""
    main_thread_waited: float
    """How long it waited for a processor. In the rest of the gap it waited for other threads (the GIL), or was idle."""
    short_median: float | None
    """How long a short answer on a new connection takes during the attack."""
    short_longest: float | None
    rss_before: float
    rss_highest: float
    rss_after: float
    failed_calls: int
    caller_waited: float | None = None
    """How long a thread of the honest caller waited for a processor in that gap. None in older files."""


@dataclass(frozen=True)
class Run:
    """One run, and what was attacked."""

    attack: str
    server: str
    """`now`, or `before` for the server of another checkout."""
    transport: str
    engine: str
    python: str
    grpcio: str
    figures: Figures


def save(runs: list[Run], name: str) -> None:
    """Writes the runs to results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps([asdict(run) for run in runs], indent=1) + "\n")


def load(path: Path) -> list[Run]:
    """Reads what `save` has written."""
    rows: list[dict[str, Any]] = json.loads(path.read_text())
    return [Run(figures=Figures(**row.pop("figures")), **row) for row in rows]
