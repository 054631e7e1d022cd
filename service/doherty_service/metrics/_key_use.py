"""Reads from a server's metrics how much each key uses now."""

import http.client
import urllib.error
import urllib.request
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

RUNNING = "doherty_key_running_requests"
QUEUED = "doherty_key_queued_requests"
SHARE = "doherty_key_limit_use_ratio"

_SECONDS = 5.0


class UseUnknownError(Exception):
    """The server's metrics cannot be read. The message is a sentence that says why."""


@dataclass(slots=True)
class KeyUse:
    """What one key uses now."""

    running: int = 0
    """Requests that the engine is processing."""
    queued: int = 0
    """Requests that wait for a slot."""
    shares: dict[str, float] = field(default_factory=dict)
    """The used share of each limit by the limit's name; 1 is the whole limit."""


def read_key_use(address: str) -> dict[str, KeyUse]:
    """Returns what each key uses now, by the name of the key.

    Raises:
        UseUnknownError: No server provides Doherty's metrics at the address (HOST:PORT).
    """
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=_SECONDS) as reply:
            families = list(text_string_to_metric_families(reply.read().decode()))
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise UseUnknownError(f"The metrics of the server cannot be read at {address}: {reason}.") from error
    use_by_key: dict[str, KeyUse] = {}
    for sample in (sample for family in families for sample in family.samples):
        if sample.name not in {RUNNING, QUEUED, SHARE}:
            continue
        use = use_by_key.setdefault(sample.labels["key"], KeyUse())
        if sample.name == SHARE:
            use.shares[sample.labels["limit"]] = sample.value
        elif sample.name == RUNNING:
            use.running = int(sample.value)
        else:
            use.queued = int(sample.value)
    if not any(family.name == RUNNING for family in families):
        raise UseUnknownError(f"The metrics at {address} are not those of a Doherty server with API keys.")
    return use_by_key
