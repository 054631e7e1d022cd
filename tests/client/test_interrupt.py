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
    # Ctrl-C arrives just after the lock was taken.
    def __enter__(self):
        entered = super().__enter__()
        if threading.current_thread() is threading.main_thread():
            while presses:
                presses.pop()
                signal.raise_signal(signal.SIGINT)
        return entered

presses = []
with Client(sys.argv[1]) as client:
    stream = client.stream_generate("Why?")
    next(stream)
    stream._call._state.condition.__class__ = Condition
    presses += {presses} * [None]
    try:
        {action}
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    stream.close()
    print(client.generate("Why?", max_output_tokens=1).usage.output_tokens)
    with client.stream_generate("Why?", max_output_tokens=10) as stream:
        print(stream.result().usage.output_tokens)
"""


@pytest.mark.parametrize("presses", [1, 2])
@pytest.mark.parametrize("action", ["list(stream)", "stream.close()"])
def test_a_client_works_after_ctrl_c_within_the_code_of_grpc(
    slow_server: ServerProcess, action: str, presses: int
) -> None:
    finished = run(INTERRUPTED_IN_GRPC.format(action=action, presses=presses), slow_server.target)
    assert (finished.stdout, finished.stderr) == ("interrupted\n1\n10\n", "")
    assert slow_server.wait_for("request", rpc="StreamGenerate", code="CANCELLED")


INTERRUPTED_CALLS = """
import signal, sys, threading

class Condition(threading.Condition):
    # Ctrl-C arrives just after gRPC has taken one of its locks.
    def __enter__(self):
        entered = super().__enter__()
        is_of_grpc = "/grpc/" in sys._getframe(1).f_code.co_filename
        if is_of_grpc and threading.current_thread() is threading.main_thread():
            counted.append(None)
            if is_calling and len(counted) == chosen:
                global presses
                presses += 1
                signal.raise_signal(signal.SIGINT)
        return entered

counted, chosen, is_calling, presses = [], 0, False, 0
threading.Condition = Condition  # before gRPC is imported
from doherty import Client, InvalidRequestError

with Client(sys.argv[1]) as client:
    while presses == chosen:  # until a call takes fewer locks
        counted.clear()
        chosen, is_calling = chosen + 1, True
        try:
            client.generate("Why?", max_output_tokens=2, temperature={temperature})
        except KeyboardInterrupt:
            print("interrupted")
        except InvalidRequestError:
            pass  # the error is dropped when it has been handled
        is_calling = False
        with client.stream_generate("Why?", max_output_tokens=2) as stream:
            stream.result()
    print(presses, "presses")
"""


@pytest.mark.parametrize(("temperature", "code"), [(1, "CANCELLED"), (-1, "INVALID_ARGUMENT")])
def test_a_client_works_after_ctrl_c_during_any_call(slow_server: ServerProcess, temperature: int, code: str) -> None:
    finished = run(INTERRUPTED_CALLS.replace("{temperature}", str(temperature)), slow_server.target)
    *interrupted, last = finished.stdout.splitlines()
    assert last == f"{len(interrupted)} presses"
    assert len(interrupted) > 3
    assert finished.stderr == ""
    assert slow_server.wait_for("request", rpc="Generate", code=code)


CLOSED_BY_A_THREAD = """
import sys, threading
from doherty import Client, ClientClosedError

def close():
    with Client(sys.argv[1]) as other:
        while not other.latency().running:
            pass
    client.close()

client = Client(sys.argv[1])
threads = set(threading.enumerate())
thread = threading.Thread(target=close)
thread.start()
try:
    client.generate("Why?", max_output_tokens=2000)
except ClientClosedError:
    print("closed")
thread.join()
print(set(threading.enumerate()) - threads)
"""


def test_a_thread_may_close_the_client_while_the_main_thread_waits(slow_server: ServerProcess) -> None:
    finished = run(CLOSED_BY_A_THREAD, slow_server.target)
    assert (finished.stdout, finished.stderr) == ("closed\nset()\n", "")


CALLS_AT_EXIT = """
import atexit, sys
from doherty import Client

client = Client(sys.argv[1])
client.generate("Why?", max_output_tokens=1)  # before that, because the SDK closes the channel at exit, too
atexit.register(lambda: print(client.generate("Why?", max_output_tokens=2).usage.output_tokens))
"""


def test_a_call_works_at_the_exit_of_the_interpreter(slow_server: ServerProcess) -> None:
    """Python 3.12 and later start no threads then."""
    finished = run(CALLS_AT_EXIT, slow_server.target)
    assert (finished.stdout, finished.stderr) == ("2\n", "")


FAILED_CALL = """
import gc, sys, weakref
from doherty import Client, InvalidRequestError

client = Client(sys.argv[1])
client.generate("Why?", max_output_tokens=1)
gc.collect()
gc.disable()
try:
    client.generate("Why?", temperature=-1)
except InvalidRequestError as error:
    print(error.field_violations[0].field, error.__cause__)
pool = weakref.ref(client._pool)
del client
print(pool())
"""


def test_a_failed_call_keeps_nothing_alive(slow_server: ServerProcess) -> None:
    finished = run(FAILED_CALL, slow_server.target)
    first, last = finished.stdout.splitlines()
    assert first.startswith("sampling.temperature INVALID_ARGUMENT: ")
    assert (last, finished.stderr) == ("None", "")


FORKS_WHILE_IT_READS = """
import os, signal, sys, threading
from doherty import Client

def fork():
    while signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        pass
    if (child := os.fork()) == 0:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            os._exit(7)
        os._exit(8)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)

with Client(sys.argv[1]) as client, client.stream_generate("Why?", max_output_tokens=20) as stream:
    thread = threading.Thread(target=fork)
    thread.start()
    list(stream)
    thread.join()
"""


def test_ctrl_c_ends_a_process_that_was_forked_while_a_stream_was_read(slow_server: ServerProcess) -> None:
    finished = run(FORKS_WHILE_IT_READS, slow_server.target)
    assert finished.stdout == "7\n"


WAITING_INTERCEPTOR = """
import signal, sys, threading
import grpc
from doherty import Client

class Interceptor(grpc.UnaryStreamClientInterceptor):
    def intercept_unary_stream(self, continuation, details, request):
        signal.raise_signal(signal.SIGINT)
        threading.Event().wait()

with Client(sys.argv[1], interceptors=[Interceptor()]) as client:
    try:
        client.stream_generate("Why?")
    except KeyboardInterrupt:
        print("interrupted")
"""


def test_ctrl_c_interrupts_an_interceptor(slow_server: ServerProcess) -> None:
    finished = run(WAITING_INTERCEPTOR, slow_server.target)
    assert (finished.stdout, finished.stderr) == ("interrupted\n", "")


HANDLER_CHANGED_WHILE_IT_READS = """
import signal, sys
from doherty import Client

with Client(sys.argv[1]) as client, client.stream_generate("Why?", max_output_tokens=20) as stream:
    signal.signal(signal.SIGALRM, lambda *_: signal.signal(signal.SIGINT, signal.SIG_IGN))
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    list(stream)
    print(signal.getsignal(signal.SIGINT).name)
"""


def test_a_handler_that_is_installed_while_a_stream_is_read_stays(slow_server: ServerProcess) -> None:
    finished = run(HANDLER_CHANGED_WHILE_IT_READS, slow_server.target)
    assert (finished.stdout, finished.stderr) == ("SIG_IGN\n", "")


def run(program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
