"""Holds back a burst of calls until the servers behind one target are connected.

gRPC connects to all addresses of a target at the same time, but sends all calls that wait for a connection to the first
server that is connected.
"""

from time import monotonic
from typing import TYPE_CHECKING, Final

from google.protobuf.wrappers_pb2 import StringValue

from doherty._core._actions import Actions, Pause, Send
from doherty._core._balance import MAX_SETTLING

if TYPE_CHECKING:
    from doherty._core._balance import Target
    from doherty._core._retry import CallAttempts

HEALTH_REQUEST: Final = StringValue()
"""The request for the health of the whole server: the service with the empty name."""

_MIN_SETTLING: Final = 0.05

_LONGEST_CONNECT: Final = 1.0
"""Maximum time to wait for the first connection, in seconds."""

_STEP: Final = 0.02
"""The interval in which waiting calls check whether the servers are connected, in seconds."""

_SHARE: Final = 4
"""After the first connection, a call waits at most for its remaining time divided by this."""


def settling_seconds(connecting_seconds: float) -> float:
    """Estimates how many seconds after the first connection all servers behind a target are connected."""
    return min(max(connecting_seconds, _MIN_SETTLING), MAX_SETTLING)


def settle(target: "Target", attempts: "CallAttempts") -> Actions[None]:
    """Waits until the servers behind a target are connected, at most two seconds. This happens once for each target."""
    while not target.settled:
        if monotonic() >= target.settling_until:
            # A call that nobody reads does not continue. So another one takes over when its time is over.
            until = target.settling_until = monotonic() + _LONGEST_CONNECT + MAX_SETTLING
            try:
                yield from _connect(target, attempts)
            finally:
                if target.settling_until == until:
                    target.settling_until = 0.0
            target.settled = True
        elif attempts.remaining() == 0:
            return  # gRPC reports the deadline
        elif (yield Pause(_STEP)):
            return


def _connect(target: "Target", attempts: "CallAttempts") -> Actions[None]:
    """Waits until one server is connected, and then for the estimated time until the others are."""
    began = monotonic()
    remaining = attempts.remaining()
    timeout = _LONGEST_CONNECT if remaining is None else min(remaining, _LONGEST_CONNECT)
    # The result does not matter: after an error, the call itself will fail and report it.
    yield Send("Check", target, HEALTH_REQUEST, timeout, attempts.shared_metadata, attempts.shared_metadata)
    seconds = settling_seconds(monotonic() - began)
    remaining = attempts.remaining()
    yield Pause(seconds if remaining is None else min(seconds, remaining / _SHARE))
