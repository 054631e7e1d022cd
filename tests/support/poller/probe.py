"""Counts how often the event loop wakes up for a burst of gRPC's events: `probe.py FILE plain|drained`.

FILE is service/doherty_service/transport/_poller.py. It is loaded without its package, because the environment with the
oldest libraries has no server.
"""

import asyncio
import importlib.util
import json
import logging
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import uvloop

CALLS = 32

spec = importlib.util.spec_from_file_location("poller", sys.argv[1])
assert spec is not None
assert spec.loader is not None
poller: Any = importlib.util.module_from_spec(spec)
spec.loader.exec_module(poller)


class Counting(uvloop.Loop):
    """Counts the calls of the event loop's readers; only gRPC has a reader."""

    wakes = 0
    poller: socket.socket

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
        def read(*more: Any) -> None:
            self.wakes += 1
            callback(*more)

        self.poller = fd
        super().add_reader(fd, read, *args)

    def waiting(self) -> int:
        """Returns the number of gRPC's events that no reader has handled yet."""
        try:
            return len(self.poller.recv(4096, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return 0


class Drained(poller.Loop, Counting):  # type: ignore[misc]
    """The event loop of the server, with the counter."""


class Burst:
    """Calls whose second messages arrive at the same time."""

    def __init__(self) -> None:
        self.first = self.second = 0
        self.all_first, self.all_second = asyncio.Event(), asyncio.Event()

    async def handle(self, messages: AsyncIterator[bytes], _: Any) -> bytes:
        """Reads two messages."""
        async for _message in messages:
            if self.first < CALLS:
                self.first += 1
                if self.first == CALLS:
                    self.all_first.set()
            else:
                self.second += 1
                if self.second == CALLS:
                    self.all_second.set()
        return b""


def call(port: int, go: threading.Event, over: threading.Event) -> None:
    """Sends the first message, the second one after `go` is set, and ends the call after `over` is set."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        outgoing: list[queue.SimpleQueue[bytes | None]] = [queue.SimpleQueue() for _ in range(CALLS)]
        method: Any = channel.stream_unary("/probe/Burst")
        calls = [method.future(iter(messages.get, None)) for messages in outgoing]
        for messages in outgoing:
            messages.put(b"first")
        go.wait()
        for messages in outgoing:
            messages.put(b"second")
        over.wait()
        for messages in outgoing:
            messages.put(None)
        for pending in calls:
            pending.result()


async def main() -> None:
    """Prints how often the event loop woke up during the burst."""
    burst = Burst()
    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_unary_rpc_method_handler(burst.handle)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("probe", {"Burst": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    poller.calm_poller()
    go, over = threading.Event(), threading.Event()
    loop: Any = asyncio.get_running_loop()
    calling = loop.run_in_executor(None, call, port, go, over)
    await burst.all_first.wait()
    for _ in range(4 * CALLS):  # lets the event loop handle all messages that have arrived
        await asyncio.sleep(0)
    before = loop.wakes
    go.set()
    while loop.waiting() < CALLS:  # blocks the event loop while the messages arrive
        time.sleep(0.001)  # noqa: ASYNC251 - blocking is intended
    await burst.all_second.wait()
    for _ in range(4 * CALLS):
        await asyncio.sleep(0)
    wakes = loop.wakes - before
    over.set()
    await calling
    await server.stop(None)
    policies = {os.sched_getscheduler(thread.native_id or 0) for thread in threading.enumerate()}
    logged = [record.getMessage() for record in records]
    sys.stdout.write(json.dumps({"wakes": wakes, "batch": os.SCHED_BATCH in policies, "debug": logged}))


records: list[logging.LogRecord] = []
logger = logging.getLogger("doherty.server")
logger.setLevel(logging.DEBUG)
logger.addHandler(type("Keep", (logging.Handler,), {"emit": lambda _, record: records.append(record)})())
if sys.argv[2] == "unknown":  # the internals of this version of grpcio are not known here
    poller._POLLER = poller._POLLER_THREAD = "another"  # noqa: SLF001
with asyncio.Runner(loop_factory=Counting if sys.argv[2] == "plain" else Drained) as runner:
    runner.run(main())
