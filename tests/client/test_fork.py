"""Clients in a forked child of the process that created them."""

import subprocess
import sys

import pytest

from support.server import ServerProcess

USE = """
import os, sys, warnings
from doherty import Client, ForkError

warnings.simplefilter("ignore", DeprecationWarning)  # of the fork itself
client = Client(sys.argv[1])
stream = client.stream_generate("Hi", max_output_tokens=50)
next(stream)
child = os.fork()
if not child:
    for call in (lambda: client.generate("Hi"), lambda: next(stream), lambda: client.wait_ready(5)):
        try:
            call()
        except ForkError as error:
            assert "make a client in each process" in str(error), error
        else:
            os._exit(3)
    del call, stream, client
    with Client(sys.argv[1]) as own:
        own.generate("Hi", max_output_tokens=1)
    os._exit(0)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert len(stream.result().text) > 0
client.close()
sys.exit(status)
"""

USE_ASYNCHRONOUS = """
import asyncio, os, sys, warnings
from doherty import AsyncClient, ForkError

warnings.simplefilter("ignore", DeprecationWarning)
client = AsyncClient(sys.argv[1])

async def use():
    return await client.generate("Hi", max_output_tokens=2)

async def fork_on_the_loop():
    child = os.fork()
    if not child:
        try:
            await use()
        except ForkError:
            os._exit(0)
        os._exit(4)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

with asyncio.Runner() as runner:
    runner.run(use())
    child = os.fork()
    if not child:
        try:
            asyncio.new_event_loop().run_until_complete(use())
        except ForkError:
            os._exit(0)
        os._exit(3)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    runner.run(use())
    status = status or runner.run(fork_on_the_loop())
    runner.run(use())
    runner.run(client.close())
sys.exit(status)
"""


@pytest.mark.parametrize("program", [USE, USE_ASYNCHRONOUS], ids=["Client", "AsyncClient"])
def test_a_used_client_raises_an_error_after_a_fork(synthetic_server: ServerProcess, program: str) -> None:
    command = [sys.executable, "-c", program, synthetic_server.target]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert finished.returncode == 0, finished.stderr


USE_UNUSED = """
import os, sys, warnings
from doherty import Client

warnings.simplefilter("ignore", DeprecationWarning)
clients = [Client(sys.argv[1]), Client("localhost:1", tls=True, retry=None)]
children = [os.fork()]
if children[0]:
    children.append(os.fork())
clients[0].generate("Hi", max_output_tokens=1)
clients[0].stream_generate("Hi", max_output_tokens=1, idle_timeout=30).result()
try:
    clients[1].generate("Hi", timeout=5)
except ConnectionError:
    pass
for client in clients:
    client.close()
if 0 in children:
    os._exit(0)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


def test_a_client_that_was_not_used_survives_a_fork(synthetic_server: ServerProcess) -> None:
    command = [sys.executable, "-c", USE_UNUSED, synthetic_server.target]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert finished.returncode == 0, finished.stderr
