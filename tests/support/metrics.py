"""What a server tells Prometheus."""

import time
import urllib.request
from collections.abc import Callable

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from support.server import ServerProcess
from support.wire import SECONDS

LISTEN = ("--metrics-listen", "127.0.0.1:0")


class Scrape:
    """The metrics of one moment."""

    def __init__(self, families: list[Metric]) -> None:
        self.families = families

    def value(self, name: str, **labels: str) -> float | None:
        """The value of one series, None where there is none."""
        found = [
            sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == name and sample.labels == labels
        ]
        assert len(found) <= 1, f"{name} {labels} is there twice"
        return found[0] if found else None

    def labels(self, name: str) -> list[dict[str, str]]:
        """The labels of all series of one name."""
        return [sample.labels for family in self.families for sample in family.samples if sample.name == name]


def scrape(server: ServerProcess) -> Scrape:
    """Reads the metrics as Prometheus does."""
    return scrape_address(str(server.wait_for("metrics")["address"]))


def scrape_address(address: str) -> Scrape:
    """Reads the metrics at HOST:PORT."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=SECONDS) as reply:
        return Scrape(list(text_string_to_metric_families(reply.read().decode())))


def scrape_until(server: ServerProcess, holds: Callable[[Scrape], object]) -> Scrape:
    """Reads the metrics until something holds."""
    ends_at = time.monotonic() + SECONDS
    while not holds(now := scrape(server)):
        assert time.monotonic() < ends_at, "it never came to be"
    return now
