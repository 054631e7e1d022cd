"""The log of this package."""

import logging
from time import perf_counter
from typing import TYPE_CHECKING, Final

import grpc

if TYPE_CHECKING:
    from google.protobuf.message import Message

_LOG: Final = logging.getLogger("doherty")


def log_attempt(request: "Message", target: str, started: float, error: BaseException | None = None) -> None:
    """Leaves a debug line on an attempt that ended.

    Args:
        request: What was asked for; only its kind is logged.
        target: The server's address.
        started: When the attempt began, by `perf_counter`.
        error: What gRPC raised, if it did.
    """
    if _LOG.isEnabledFor(logging.DEBUG):
        outcome = "OK" if error is None else error.code().name if isinstance(error, grpc.RpcError) else "closed"
        _LOG.debug("%s to %s: %s after %.3f s", request.DESCRIPTOR.name, target, outcome, perf_counter() - started)
