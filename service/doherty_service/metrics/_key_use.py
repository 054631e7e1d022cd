"""What each key uses now, as a running server tells it in its metrics."""

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
    """The server's metrics cannot be read; the message is a sentence that says why."""


@dataclass(slots=True)
class KeyUse:
    """Of one key."""

    running: int = 0
    queued: int = 0
    shares: dict[str, float] = field(default_factory=dict)
    """How much of each of its limits is in use; 1 is all of it."""


def read_key_use(address: str) -> dict[str, KeyUse]:
    """Asks a server for the use of its keys, by their names.

    Raises:
        UseUnknownError: nothing that serves Doherty's metrics answers at the address (HOST:PORT).
    """
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=_SECONDS) as reply:
            families = list(text_string_to_metric_families(reply.read().decode()))
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise UseUnknownError(f"The metrics of the server cannot be read at {address}: {reason}.") from error
    use: dict[str, KeyUse] = {}
    for sample in (sample for family in families for sample in family.samples):
        if sample.name not in {RUNNING, QUEUED, SHARE}:
            continue
        one = use.setdefault(sample.labels["key"], KeyUse())
        if sample.name == SHARE:
            one.shares[sample.labels["limit"]] = sample.value
        elif sample.name == RUNNING:
            one.running = int(sample.value)
        else:
            one.queued = int(sample.value)
    if not any(family.name == RUNNING for family in families):
        raise UseUnknownError(f"What answers at {address} does not tell the use of keys.")
    return use
