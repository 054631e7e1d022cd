"""The two changes to grpc.aio's poller, on the oldest and the newest grpcio that the server supports."""

import json
import subprocess
import sys
from typing import Any

import pytest

from support.wheel import ROOT

PYTHONS = {"newest": sys.executable, "oldest": str(ROOT / ".cache" / "oldest" / "bin" / "python")}
PROBE = ROOT / "tests" / "support" / "poller" / "probe.py"
POLLER = ROOT / "service" / "doherty_service" / "transport" / "_poller.py"
CALLS = 32


def probe(python: str, how: str) -> dict[str, Any]:
    """Returns the cost of a burst of 32 messages."""
    counts: dict[str, Any] = json.loads(subprocess.check_output([PYTHONS[python], PROBE, POLLER, how], text=True))
    return counts


@pytest.mark.parametrize("python", PYTHONS)
def test_a_burst_of_events_wakes_the_loop_a_few_times(python: str) -> None:
    plain, drained = probe(python, "plain"), probe(python, "drained")
    assert plain["wakes"] >= CALLS / 2
    assert drained["wakes"] <= plain["wakes"] / 3
    assert (plain["batch"], drained["batch"]) == (True, True)
    assert drained["debug"] == ["poller_drained"]


@pytest.mark.parametrize("python", PYTHONS)
def test_unknown_internals_are_not_changed(python: str) -> None:
    counts = probe(python, "unknown")
    assert counts["wakes"] >= CALLS / 2
    assert not counts["batch"]
    assert counts["debug"] == ["poller_not_calmed"]
