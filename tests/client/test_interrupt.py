"""Ctrl-C in a program that uses the SDK."""

import signal
import subprocess
import sys

import pytest

from support.server import ServerProcess

PROGRAMS = {
    "Client": """
import threading
from doherty import Client
client = Client("127.0.0.1:1", timeout=0.5)
try:
    client.generate("Hi")
except (ConnectionError, TimeoutError):
    print("not reached", flush=True)
threading.Event().wait()
""",
    "AsyncClient": """
import asyncio
from doherty import AsyncClient
async def main():
    client = AsyncClient("127.0.0.1:1", timeout=0.5)
    try:
        await client.generate("Hi")
    except (ConnectionError, TimeoutError):
        print("not reached", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
""",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_one_ctrl_c_ends_a_program_that_waits_for_its_server(name: str) -> None:
    command = [sys.executable, "-c", PROGRAMS[name]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "not reached\n"
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=40)
    assert program.returncode == -signal.SIGINT
    assert errors.strip().endswith("KeyboardInterrupt")


INTERRUPTED_IN_GRPC = """
import signal, sys, threading
from doherty import Client

class Condition(threading.Condition):
    # A Ctrl-C arrives just after the lock was taken.
    def __enter__(self):
        entered = super().__enter__()
        if threading.current_thread() is threading.main_thread() and not interrupted:
            interrupted.append(True)
            signal.raise_signal(signal.SIGINT)
        return entered

interrupted = [True]
with Client(sys.argv[1]) as client:
    stream = client.stream_generate("Why?")
    next(stream)
    stream._call._state.condition.__class__ = Condition
    interrupted.clear()
    try:
        {action}
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    stream.close()
    print(client.generate("Why?", max_output_tokens=1).usage.output_tokens)
    with client.stream_generate("Why?", max_output_tokens=1) as stream:
        print(stream.result().usage.output_tokens)
"""


@pytest.mark.parametrize("action", ["list(stream)", "stream.close()"])
def test_a_client_works_after_a_ctrl_c_within_the_code_of_grpc(slow_server: ServerProcess, action: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED_IN_GRPC.format(action=action), slow_server.target]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (finished.stdout, finished.stderr) == ("interrupted\n1\n1\n", "")
    assert slow_server.wait_for("request", rpc="StreamGenerate", code="CANCELLED")
