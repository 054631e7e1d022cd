"""What an attack costs those who are served beside it.

`PYTHONPATH=tests python benchmarks/attack/attack.py [--before PATH] [--only TEXT]`. Each attack meets a server of its own,
with keys and limits, which may have 4 GiB of address space. Beside it, an honest caller reads a stream of 200 tokens a
second, and another one asks for short answers; both have keys of their own. Printed is the stream's longest gap without
and with the attack, the memory (RSS) before the attack, its highest value, and that five seconds after the attack, and
how many honest calls failed. `--before` does the same with the server of another checkout, in turns. Loopback only.
"""

import argparse
import os
import resource
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc

from doherty.v1.generation_service_pb2 import MultiplexGenerateRequest, MultiplexStart
from support.http2 import END_HEADERS, END_STREAM, GREETING, Kind, frame, header_block, raw_connection
from support.memory import peak_bytes, resident_bytes
from support.security import add_key, bearer, connect_with
from support.server import ServerProcess, start_server
from support.strangers import STRANGERS
from support.wire import Caller, request

ADDRESS_SPACE = 4 << 30
QUIET_SECONDS = 3.0
ATTACK_SECONDS = 6.0
SETTLE_SECONDS = 5.0
BOMBS = 14
BOMB_BYTES = 60_000_000
FRAME_BYTES = 16_000
ENDLESS: dict[str, Any] = {"prompt": "a", "stopping": {"max_output_tokens": 8000, "ignore_eos": True}}
SHORT: dict[str, Any] = {"prompt": "Why?", "stopping": {"max_output_tokens": 3}}

Attack = Callable[[str, str], None]
"""Takes the server's address and a key that may have one request at a time."""


def undecodable_path(target: str, _: str) -> None:
    """A call to a method whose name is no text, without a key."""
    with raw_connection(target) as connection:
        connection.send(GREETING, frame(Kind.HEADERS, END_HEADERS | END_STREAM, 1, header_block("/doherty/\udcff")))
        next((one for one in connection.frames() if one.stream == 1), None)


def gzip_bombs(target: str, _: str) -> None:
    """Messages of 60 kB to the open health service, all at once, which decompress to 60 MB each."""
    packer = zlib.compressobj(9, wbits=31)
    data = packer.compress(bytes(BOMB_BYTES)) + packer.flush()
    message = b"\1" + len(data).to_bytes(4) + data
    headers = header_block("/grpc.health.v1.Health/Check", ("grpc-encoding", "gzip"))
    with ExitStack() as stack:
        connections = [stack.enter_context(raw_connection(target)) for _ in range(BOMBS)]
        for connection in connections:
            connection.send(GREETING, frame(Kind.HEADERS, END_HEADERS, 1, headers))
            for at in range(0, len(message), FRAME_BYTES):
                connection.send(frame(Kind.DATA, 0, 1, message[at : at + FRAME_BYTES]))
            connection.send(frame(Kind.DATA, END_STREAM, 1))
        for connection in connections:
            next((one for one in connection.frames() if one.stream == 1), None)


def flood(requests: int) -> Attack:
    """One message of empty requests and their cancels."""
    numbers = range(1, requests + 1)
    message = MultiplexGenerateRequest(
        starts=[MultiplexStart(id=number) for number in numbers], cancels=numbers
    ).SerializeToString()

    def attack(target: str, token: str) -> None:
        with grpc.insecure_channel(target) as channel:
            call: Any = channel.stream_stream("/doherty.v1.GenerationService/MultiplexGenerate")
            with suppress(grpc.RpcError):
                for _ in call(iter([message]), timeout=60, metadata=bearer(token)):
                    pass

    return attack


ATTACKS: dict[str, Attack] = {
    "path that is not UTF-8": undecodable_path,
    "14 gzip bombs, 60 kB": gzip_bombs,
    "multiplexed, 72 kB": flood(8_000),  # as many as a message may have
    "multiplexed, 87 kB": flood(9_600),
    "multiplexed, 0.85 MB": flood(94_000),
    "multiplexed, 1.6 MB": flood(178_000),
    **STRANGERS,
}


class Honest:
    """A caller that reads a stream, and one that asks for short answers, each time on a connection of its own."""

    def __init__(self, target: str, stream_token: str, short_token: str) -> None:
        """Begins both."""
        self.arrivals: list[float] = []
        self.failed = 0
        self._target = target
        self._tokens = stream_token, short_token
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=one, daemon=True) for one in (self._stream, self._ask)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends both."""
        self._is_over.set()
        for thread in self._threads:
            thread.join(60)

    def longest_gap(self, begin: float, end: float) -> float:
        """Seconds between two deltas, or between the last one and the end, within a span of time."""
        times = [begin, *(one for one in self.arrivals if begin < one < end), end]
        return max(later - earlier for earlier, later in pairwise(times))

    def _stream(self) -> None:
        while not self._is_over.is_set():
            try:
                with connect_with(self._target, self._tokens[0]) as caller:
                    self._read(caller)
            except grpc.RpcError:
                self.failed += 1
                time.sleep(0.1)

    def _read(self, caller: Caller) -> None:
        stream: Any = caller.stub.StreamGenerate(request(**ENDLESS), timeout=60)
        for _ in stream:
            self.arrivals.append(time.monotonic())
            if self._is_over.is_set():
                stream.cancel()
                return

    def _ask(self) -> None:
        while not self._is_over.wait(0.05):
            try:
                channel = grpc.insecure_channel(self._target, options=[("grpc.use_local_subchannel_pool", 1)])
                with channel:
                    call: Any = channel.unary_unary("/doherty.v1.GenerationService/Generate")
                    call(request(**SHORT).SerializeToString(), timeout=10, metadata=bearer(self._tokens[1]))
            except grpc.RpcError:
                self.failed += 1


def measure(attack: Attack, variables: dict[str, str]) -> list[float]:
    """The gap without and with the attack in milliseconds, memory before, highest and after in MiB, failed calls."""
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys.json"
        tokens = [add_key(keys, name) for name in ("stream", "short")]
        narrow = add_key(keys, "attacker", max_concurrent=1)
        flags = ("--engine", "synthetic", "--keys-file", str(keys), "--stall-timeout", "5", "--receive-timeout", "5")
        with start_server(*flags, **variables) as server:
            resource.prlimit(server.process.pid, resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
            honest = Honest(server.target, *tokens)
            time.sleep(1)
            return _observe(server, honest, lambda: attack(server.target, narrow))


def _observe(server: ServerProcess, honest: Honest, attack: Callable[[], None]) -> list[float]:
    quiet_from = time.monotonic()
    time.sleep(QUIET_SECONDS)
    attack_from = time.monotonic()
    before = resident_bytes(server)
    failed_before = honest.failed
    attacking = threading.Thread(target=attack, daemon=True)
    attacking.start()
    attacking.join(60)
    time.sleep(max(0.0, attack_from + ATTACK_SECONDS - time.monotonic()))
    attack_until = time.monotonic()
    time.sleep(SETTLE_SECONDS)
    after, highest = resident_bytes(server), peak_bytes(server)
    failed = honest.failed - failed_before
    honest.stop()
    gaps = honest.longest_gap(quiet_from, attack_from), honest.longest_gap(attack_from, attack_until)
    return [*(gap * 1000 for gap in gaps), *(value / (1 << 20) for value in (before, highest, after)), failed]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="attacks whose name has this in it")
    parser.add_argument("--before", type=Path, help="another checkout, whose server is attacked, too")
    arguments = parser.parse_args()
    before: Path | None = arguments.before
    servers: dict[str, dict[str, str]] = {"now": {}}
    if before is not None:
        paths = [str(before / part) for part in ("client", "engine", "service")]
        servers = {"before": {"PYTHONPATH": os.pathsep.join(paths)}, **servers}
    print("| attack | server | gap without, ms | gap with, ms | RSS before, MiB | highest | after | failed calls |")
    print("|---|---|---|---|---|---|---|---|")
    for name, attack in ATTACKS.items():
        if arguments.only not in name:
            continue
        for which, variables in servers.items():
            figures = " | ".join(f"{figure:.0f}" for figure in measure(attack, variables))
            print(f"| {name} | {which} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
