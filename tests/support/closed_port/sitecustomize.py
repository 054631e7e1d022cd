"""Closes the port of a server on SIGUSR1, without the server's knowledge. Python imports this file at its start."""

import asyncio
import signal
from typing import Any

import grpc.aio

_make: Any = grpc.aio.server


def _make_one_that_can_be_closed(**options: Any) -> grpc.aio.Server:
    made: grpc.aio.Server = _make(**options)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, lambda: loop.create_task(made.stop(60)))
    return made


setattr(grpc.aio, "server", _make_one_that_can_be_closed)  # noqa: B010 - for type checkers it has another signature
