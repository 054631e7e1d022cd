"""Measures the cost of TLS on both transports: `PYTHONPATH=tests python benchmarks/tls.py [ROUNDS]`.

Servers with and without TLS (a certificate with a key on P-256) run on each transport. A client in another process
reads 32 streams of 200 tokens per second from each in turn; printed is the server's CPU time per token. Then four
threads of the client make handshakes, one after the other; printed are the handshakes per second, and the server's CPU
time per handshake. At last, one stream is read while an attacker makes handshakes, begins many and stops after its
first message, or completes the first messages of many connections at once; printed is the longest gap between two
messages. All figures are medians of the rounds.
"""

import argparse
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import grpc

from doherty.v1 import generation_service_pb2_grpc
from support.certificates import Authority
from support.http2 import RawConnection, raw_connection
from support.memory import cpu_seconds
from support.server import ServerProcess, start_server
from support.wire import SECONDS, connect, request

ENGINE = ("--engine", "synthetic", "-o", "tokens_per_second=200", "-o", "slots=64")
TRANSPORTS = ("grpcio", "http2")
STREAMS = 32
LOAD_SECONDS = 4.0
HANDSHAKE_SECONDS = 2.0
HANDSHAKE_THREADS = 4
STALLED = 400
LATE = 64
LATE_SECONDS = 0.5
ATTACKER_NICENESS = 10
Figures = defaultdict[tuple[str, ...], list[float]]


def stream(target: str, roots: bytes, seconds: float) -> list[float]:
    """Reads a stream for some seconds. Returns the times at which its messages arrived."""
    endless = request(prompt="a", stopping={"max_output_tokens": 8_000, "ignore_eos": True})
    credentials = grpc.ssl_channel_credentials(roots) if roots else None
    options = [("grpc.use_local_subchannel_pool", 1)]
    with (
        grpc.secure_channel(target, credentials, options) if credentials else grpc.insecure_channel(target, options)
    ) as channel:
        call: Any = generation_service_pb2_grpc.GenerationServiceStub(channel).StreamGenerate(endless, timeout=SECONDS)
        times: list[float] = []
        for _ in call:
            times.append(time.monotonic())
            if times[-1] - times[0] > seconds:
                call.cancel()
                break
        return times


def shake_hands(target: str, roots: bytes, seconds: float) -> int:
    """Makes handshakes, one after the other. Returns their number."""
    context = ssl.create_default_context(cadata=roots.decode())
    context.set_alpn_protocols(["h2"])
    host, port = target.rsplit(":", 1)
    ends_at, count = time.monotonic() + seconds, 0
    while time.monotonic() < ends_at:
        with (
            socket.create_connection((host, int(port)), timeout=SECONDS) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as encrypted,
        ):
            count += bool(encrypted.recv(1))  # the server's SETTINGS: it has received the end of the handshake
    return count


def begin_handshakes(target: str, roots: bytes, seconds: float) -> int:
    """Starts many handshakes repeatedly, and stops after the first message of each. Returns their number."""
    hello, count, ends_at = first_message(roots), 0, time.monotonic() + seconds
    while time.monotonic() < ends_at:
        with ExitStack() as held:
            for _ in range(STALLED):
                connection = RawConnection(target)
                held.callback(connection.close)
                with suppress(OSError):
                    connection.send(hello)
                count += 1
    return count


def complete_late(target: str, roots: bytes, seconds: float) -> int:
    """Sends all but the last byte of many first messages, and later all the last bytes. Returns their number."""
    hello, count, ends_at = first_message(roots), 0, time.monotonic() + seconds
    while time.monotonic() < ends_at:
        with ExitStack() as held:
            connections = [held.enter_context(raw_connection(target)) for _ in range(LATE)]
            for part in (hello[:-1], hello[-1:]):
                for connection in connections:
                    connection.send(part)
                time.sleep(LATE_SECONDS)
            count += LATE
    return count


def first_message(roots: bytes) -> bytes:
    """Returns the first message of a client's handshake."""
    outgoing = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context = ssl.create_default_context(cadata=roots.decode())
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


def in_threads(work: Callable[[str, bytes, float], Any], count: int, *arguments: Any) -> list[Any]:
    """Runs a function in several threads at the same time."""
    with ThreadPoolExecutor(count) as pool:
        return [done.result() for done in [pool.submit(work, *arguments) for _ in range(count)]]


WORK: dict[str, Callable[..., int]] = {
    "streams": lambda *arguments: sum(map(len, in_threads(stream, STREAMS, *arguments))),
    "handshakes": lambda *arguments: sum(in_threads(shake_hands, HANDSHAKE_THREADS, *arguments)),
    "begun handshakes": begin_handshakes,
    "late first messages": complete_late,
}


def start_client(work: str, target: str, roots: str, seconds: float) -> "subprocess.Popen[str]":
    """Runs a function of WORK in another process, which prints the number."""
    command = [
        sys.executable,
        __file__,
        "--work",
        work,
        "--target",
        target,
        "--roots",
        roots,
        "--seconds",
        str(seconds),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def number_of(client: "subprocess.Popen[str]") -> int:
    """Returns what a client has printed at its end."""
    return int(client.communicate()[0])


@contextmanager
def servers(folder: Path) -> Iterator[dict[tuple[str, str], tuple[ServerProcess, str]]]:
    """Starts the servers. Yields them by transport, and with the file of the authority, which is empty without TLS."""
    authority = Authority(folder)
    authority.renew("localhost")
    with ExitStack() as stack:
        yield {
            (transport, kind): (stack.enter_context(start_server(*ENGINE, *flags, "--transport", transport)), roots)
            for transport in TRANSPORTS
            for kind, flags, roots in (("plaintext", (), ""), ("TLS", authority.flags, str(authority.roots_file)))
        }


def measure(rounds: int, folder: Path) -> tuple[Figures, Figures]:
    """Returns microseconds, handshakes per second, and gaps in milliseconds."""
    costs, gaps = Figures(list), Figures(list)
    with servers(folder) as running:
        for _ in range(rounds):
            for (transport, kind), (server, roots) in running.items():
                before = cpu_seconds(server.process.pid)
                tokens = number_of(start_client("streams", server.target, roots, LOAD_SECONDS))
                costs["us per token", transport, kind].append((cpu_seconds(server.process.pid) - before) / tokens * 1e6)
                if not roots:
                    continue
                before = cpu_seconds(server.process.pid)
                count = number_of(start_client("handshakes", server.target, roots, HANDSHAKE_SECONDS))
                costs["handshakes per second", transport, kind].append(count / HANDSHAKE_SECONDS)
                costs["us per handshake", transport, kind].append(
                    (cpu_seconds(server.process.pid) - before) / count * 1e6
                )
                for attack in ("nothing", "handshakes", "begun handshakes", "late first messages"):
                    gaps[attack, transport, "ms"].append(longest_gap(server, roots, attack))
    return costs, gaps


def longest_gap(server: ServerProcess, roots: str, attack: str) -> float:
    """Returns the longest gap of a stream during an attack, in milliseconds."""
    attacker = None
    if attack in WORK:
        attacker = start_client(attack, server.target, roots, LOAD_SECONDS)
        os.setpriority(os.PRIO_PROCESS, attacker.pid, ATTACKER_NICENESS)
    times = stream(server.target, Path(roots).read_bytes(), LOAD_SECONDS)
    if attacker is not None:
        number_of(attacker)
        with connect(server.target, Path(roots).read_bytes()) as caller:
            caller.wait_until(lambda now: now.running == 0)
    return max(later - earlier for earlier, later in pairwise(times)) * 1000


def main() -> None:
    """Measures, and prints the tables; or does the work of a client."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", type=int, nargs="?", default=3)
    parser.add_argument("--work", choices=WORK, help="be the client")
    parser.add_argument("--target")
    parser.add_argument("--roots", default="")
    parser.add_argument("--seconds", type=float)
    arguments = parser.parse_args()
    if arguments.work:
        roots = Path(arguments.roots).read_bytes() if arguments.roots else b""
        print(WORK[arguments.work](arguments.target, roots, arguments.seconds))
        return
    with tempfile.TemporaryDirectory() as folder:
        for figures in measure(arguments.rounds, Path(folder)):
            print("| figure | transport | | median | range |\n|---|---|---|---|---|")
            for (figure, transport, kind), values in figures.items():
                spread = f"{min(values):.1f} to {max(values):.1f}"
                print(f"| {figure} | {transport} | {kind} | {median(values):.1f} | {spread} |")


if __name__ == "__main__":
    main()
