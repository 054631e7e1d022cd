"""Reads the Prometheus metrics of a server."""

import time
import urllib.request
from collections.abc import Callable

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from support.server import ServerProcess
from support.wire import SECONDS

LISTEN = ("--metrics-listen", "127.0.0.1:0")


class Scrape:
    """The metrics at one moment."""

    def __init__(self, families: list[Metric]) -> None:
        self.families = families

    def value(self, name: str, **labels: str) -> float | None:
        """Returns the value of a series, or None if it does not exist."""
        values = [
            sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == name and sample.labels == labels
        ]
        assert len(values) <= 1, f"{name} {labels} exists twice"
        return values[0] if values else None

    def labels(self, name: str) -> list[dict[str, str]]:
        """Returns the labels of all series of a metric."""
        return [sample.labels for family in self.families for sample in family.samples if sample.name == name]


def scrape(server: ServerProcess) -> Scrape:
    """Reads the metrics in the way that Prometheus does."""
    return scrape_address(str(server.wait_for("metrics")["address"]))


def scrape_address(address: str) -> Scrape:
    """Reads the metrics from HOST:PORT."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=SECONDS) as reply:
        return Scrape(list(text_string_to_metric_families(reply.read().decode())))


def scrape_until(server: ServerProcess, holds: Callable[[Scrape], object]) -> Scrape:
    """Reads the metrics until a condition is true."""
    ends_at = time.monotonic() + SECONDS
    while not holds(now := scrape(server)):
        assert time.monotonic() < ends_at, f"the condition did not become true within {SECONDS} s"
    return now
