"""Ctrl-C in a program whose server does not answer."""

import signal
import subprocess
import sys

import pytest

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
