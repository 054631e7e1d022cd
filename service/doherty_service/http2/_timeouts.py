"""The timeouts of connections: greeting, pings, idleness and age."""

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from doherty_service.telemetry import awake, log_error

if TYPE_CHECKING:
    from collections.abc import Collection

    from doherty_service.http2._connection import Connection

_CHECK_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The timeouts of a connection, in seconds."""

    idle: float
    """After this time without a call, it is closed."""
    age: float
    """At this age, it accepts no more calls; 0 means never."""
    handshake: float = 10.0
    """From the connection to its acknowledgement of our SETTINGS; the same again for TLS."""
    quiet: float = 30.0
    """After this time without a frame from the caller, it is sent a ping."""
    reply: float = 10.0
    """The time for the reply to a ping, for the reaction to a GOAWAY, and for the last bytes to be sent."""


async def watch(connections: "Collection[Connection]", timeouts: Timeouts) -> None:
    """Applies the timeouts. Runs until it is cancelled."""
    while True:
        await asyncio.sleep(_CHECK_SECONDS)
        for connection in tuple(connections):
            try:
                _check(connection, timeouts)
            except Exception as error:  # noqa: BLE001 - it must not end the timeouts of other connections
                log_error("connection_failed", cause=error)
                connection.abort()


def _check(connection: "Connection", timeouts: Timeouts) -> None:
    since = awake.seconds_since
    unanswered = connection.closed or connection.pinged
    if connection.closed is None and connection.is_in_line:
        return  # what it has sent has not been read yet, and may be the reply
    if unanswered is not None:
        if since(unanswered) > timeouts.reply:
            connection.abort()
        return
    if not connection.greeted:
        if since(connection.opened) > timeouts.handshake:
            connection.close()
        return
    connection.reset_unread(timeouts.reply)
    if since(connection.heard) > timeouts.quiet:
        connection.ping()
    if connection.retired is not None:
        if since(connection.retired) > timeouts.reply:
            connection.finish()
    elif _is_idle(connection, timeouts) or _is_old(connection, timeouts):
        connection.retire()


def _is_idle(connection: "Connection", timeouts: Timeouts) -> bool:
    return not connection.streams and awake.seconds_since(connection.used) > timeouts.idle


def _is_old(connection: "Connection", timeouts: Timeouts) -> bool:
    return bool(timeouts.age) and time.monotonic() - connection.opened > timeouts.age * connection.lifespan
