"""Freed memory that glibc keeps, and what Python and grpc.aio keep of calls that have ended."""

import asyncio
import os
import platform
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest

from doherty_service.rpc import GrpcioCall
from support.multiplex import wait_until
from support.server import ServerProcess, start_server
from support.wire import SECONDS, connect, request

PROGRAM = """
import ctypes, os, tempfile, threading
from doherty_service.process import limit_free_memory

limit_free_memory()
barrier = threading.Barrier(9)

def hold_memory():
    block = bytearray(100_000)
    barrier.wait()

threads = [threading.Thread(target=hold_memory) for _ in range(8)]
for thread in threads:
    thread.start()
barrier.wait()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
with tempfile.NamedTemporaryFile("r") as report:
    file = ctypes.c_void_p(libc.fopen(report.name.encode(), b"w"))
    libc.malloc_info(0, file)
    libc.fclose(file)
    print(report.read().count("<heap "))
"""
"""Prints the number of arenas of a process with eight threads."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no arenas")
@pytest.mark.parametrize(("variables", "arenas"), [({}, 2), ({"MALLOC_ARENA_MAX": "5"}, 5)], ids=["ours", "set"])
def test_threads_share_arenas_unless_the_operator_has_set_limits(variables: dict[str, str], arenas: int) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=kept | variables, capture_output=True, text=True, check=True
    )
    assert int(run.stdout) == arenas


COUNTS_RECORDS = """
import gc, json, signal, sys

gc.disable()

def count_records(*_):
    count = sum(type(each).__name__ == "RequestRecord" for each in gc.get_objects())
    sys.stderr.write(json.dumps({"event": "records", "count": count}) + "\\n")

signal.signal(signal.SIGUSR1, count_records)
"""
"""Without garbage collections, a record that is part of a cycle stays, and so does its request."""


def test_ended_calls_leave_no_requests_for_the_garbage_collector(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(COUNTS_RECORDS)
    endless = request(prompt="a", stopping={"max_output_tokens": 1000, "ignore_eos": True})
    with start_server("--engine", "synthetic", PYTHONPATH=str(tmp_path)) as server, connect(server.target) as caller:
        connection: Any = caller.channel
        health: Any = health_pb2_grpc.HealthStub(connection)
        calls: list[Any] = [
            lambda: caller.generate(prompt="a", stopping={"max_output_tokens": 1}),
            lambda: caller.stream(prompt="a", stopping={"max_output_tokens": 1}),
            lambda: caller.generate(prompt="a", model="no such model"),
            lambda: caller.stream(prompt="a", model="no such model"),
            lambda: caller.stub.Generate(endless, timeout=0.1),
            lambda: health.Check(HealthCheckRequest(service="no.such.Service"), timeout=SECONDS),
            lambda: connection.unary_unary("/no.such.Service/Method")(b"", timeout=SECONDS),
        ]
        for call in calls:
            with suppress(grpc.RpcError):
                call()
        stream: Any = caller.stub.StreamGenerate(endless, timeout=SECONDS)
        next(stream)
        assert _count_records(server) >= 1
        stream.cancel()
        wait_until(lambda: _count_records(server) == 0)


def _count_records(server: ServerProcess) -> int:
    server.log.clear()
    server.process.send_signal(signal.SIGUSR1)
    return int(str(server.wait_for("records")["count"]))


class CountingContext:
    """Notes how the reads of a context end."""

    def __init__(self, context: Any, ends: "asyncio.Queue[str]") -> None:
        self._context = context
        self._ends = ends

    async def read(self) -> Any:
        """Reads a message."""
        try:
            message = await self._context.read()
        except asyncio.CancelledError:
            self._ends.put_nowait("cancelled")
            raise
        except grpc.aio.InternalError:
            self._ends.put_nowait("finished")
            raise
        self._ends.put_nowait("finished")
        return message


async def give_up_a_read() -> str:
    """Returns how grpc.aio's read ends if the message comes when the handler does not wait for it any more."""
    ends, given_up = asyncio.Queue[str](), asyncio.Event()

    async def give_up(_: Any, context: Any) -> bytes:
        call: Any = GrpcioCall(cast("Any", CountingContext(context, ends)))
        reading = asyncio.ensure_future(call.read())
        await asyncio.sleep(0)  # the read begins
        reading.cancel()
        given_up.set()
        async with asyncio.timeout(SECONDS):
            return (await ends.get()).encode()

    server = grpc.aio.server()
    handlers: dict[str, Any] = {"GiveUp": grpc.stream_unary_rpc_method_handler(give_up)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: Any = channel.stream_unary("/test/GiveUp")()
            async with asyncio.timeout(SECONDS):
                await given_up.wait()
                await call.write(b"late")
                return bytes(await call).decode()
    finally:
        await server.stop(None)


def test_a_read_that_nobody_waits_for_is_finished() -> None:
    assert asyncio.run(give_up_a_read()) == "finished"
