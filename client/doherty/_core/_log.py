"""The log of this package."""

import logging
from time import perf_counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from google.protobuf.message import Message

_LOG: Final = logging.getLogger("doherty")


def log_call(request: "Message", target: str, started: float, outcome: str) -> None:
    """Leaves a debug line on a call that ended.

    Args:
        request: What was asked for; only its kind is logged.
        target: The server's address.
        started: When the call was made, by `perf_counter`.
        outcome: The name of its status.
    """
    _LOG.debug("%s to %s: %s after %.3f s", request.DESCRIPTOR.name, target, outcome, perf_counter() - started)
