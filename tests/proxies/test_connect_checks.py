"""HAProxy with health checks that only connect, in front of servers with `--listen-when-ready`."""

import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Event

from proxies.running import HAProxy, running
from support.certificates import Authority
from support.ports import free_target
from support.programs import program
from support.server import ServerProcess, start_server
from support.wire import SECONDS, connect, request

CALLERS = 4
CHECK = (
    "    option tcp-check\n",
    "    tcp-check connect #plaintext\n",
    "    tcp-check send-binary 505249202a20485454502f322e300d0a0d0a534d0d0a0d0a000000040000000000\n",
    "    tcp-check expect binary 00000000020801\n",
)
"""The lines of the file that ask for the health. Without them, HAProxy only checks that it can connect."""


def test_no_call_is_lost_while_a_server_drains_and_loads(tmp_path: Path) -> None:
    program("haproxy")
    authority = Authority(tmp_path)
    authority.renew("haproxy")
    addresses = [free_target() for _ in range(2)]
    stop = Event()

    def start(stack: ExitStack, address: str, *flags: str) -> ServerProcess:
        slow = ("--engine", "synthetic", "-o", "tokens_per_second=100", *flags)
        delay = ("--drain-delay", "5")  # HAProxy checks once per second
        return stack.enter_context(start_server(*slow, *delay, "--listen-when-ready", "--listen", address))

    with ExitStack() as stack:
        server, _ = (start(stack, address) for address in addresses)
        health = next(line for line in HAProxy.path.read_text().splitlines(keepends=True) if "47010400" in line)
        removed = dict.fromkeys((*CHECK, health), "")
        proxy = stack.enter_context(running(HAProxy("haproxy"), tmp_path, addresses, authority, more=removed))

        def call() -> int:
            """Makes short calls with plain gRPC, which does not retry, and returns their number."""
            made = 0
            with connect(proxy.target, authority.roots) as caller:
                while not stop.is_set():
                    caller.generate(prompt="a", stopping={"max_output_tokens": 5})
                    made += 1
            return made

        pool = stack.enter_context(ThreadPoolExecutor(CALLERS))
        callers = [pool.submit(call) for _ in range(CALLERS)]
        stack.callback(stop.set)
        with connect(addresses[0]) as caller:
            asked = request(prompt="a", stopping={"max_output_tokens": 600, "ignore_eos": True})
            stream = caller.stub.StreamGenerate(asked, timeout=SECONDS)
            next(stream)
            server.process.send_signal(signal.SIGTERM)
            *_, last = stream
            assert last.HasField("summary")
        assert server.wait() == 0
        again = start(stack, addresses[0], "-o", "load_seconds=2")
        again.wait_for("request")  # HAProxy has noticed that the server is ready
        stop.set()
        assert all(caller.result() for caller in callers)
