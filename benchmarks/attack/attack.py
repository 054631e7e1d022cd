"""What an attack costs those who are served beside it.

`PYTHONPATH=tests python benchmarks/attack/attack.py [--only PATTERN] [--runs N] [--before PATH] [--python PATH]
[--engine ENGINE] [--transport TRANSPORT]`. Each attack meets a server of its own, with keys, limits and metrics, which
may have 4 GiB of address space. Beside it, an honest caller reads a stream (of 200 messages a second, where the engine
is synthetic), and another one asks for short answers; both have keys of their own. The attacker is a process of its own
with a low priority, as if it had another machine. Printed is the stream's longest gap without and with the attack, the
memory (RSS) before the attack, its highest value, and that afterwards: as soon as it is near the one before, at the
latest 40 seconds after the attack, while the attacker keeps its connections. The last column says how many honest calls
failed.
`--runs` repeats each attack; the table then has the medians, and the sum of the failed calls. `--before` does the same
with the server of another checkout, in turns, and `--python` runs the servers with another interpreter, and its grpcio.
Loopback only.
"""

import argparse
import math
import os
import re
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import grpc

from engine_work import ENGINE_WORK
from holding import HOLDING, LONG_ANSWERS
from messages import MESSAGES
from protocol import PROTOCOL
from side_work import SIDE_WORK
from support.memory import peak_bytes, resident_bytes
from support.security import add_key, bearer, connect_with
from support.server import ServerProcess, start_server
from support.strangers import STRANGERS
from support.wire import Caller, request
from target import Attack, Target

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

ADDRESS_SPACE = 4 << 30
QUIET_SECONDS = 3.0
ATTACK_SECONDS = 6.0
MOST_ATTACK_SECONDS = 60.0
SETTLE_SECONDS = 40.0
ATTACKERS_NICENESS = 10
NEAR_BYTES = 20 << 20
MOST_TOKENS = {"synthetic": 8000, "llamacpp": 1900}
OPTIONS = {"synthetic": (), "llamacpp": ("-o", "slots=8", "-o", "context_tokens=8192")}
SHORT: dict[str, Any] = {"prompt": "Why?", "stopping": {"max_output_tokens": 3}}


def _by_stranger(attack: Callable[[str, str], None]) -> Attack:
    return lambda target: attack(target.address, "")


ATTACKS: dict[str, Attack] = {
    **PROTOCOL,
    **MESSAGES,
    **HOLDING,
    **SIDE_WORK,
    **ENGINE_WORK,
    **{name: _by_stranger(attack) for name, attack in STRANGERS.items()},
}
FAST = ("-o", "tokens_per_step=64", "-o", "tokens_per_second=12800")
"""Makes long answers fast: a step still comes 200 times a second."""


class Honest:
    """A caller that reads a stream, and one that asks for short answers, each time on a connection of its own."""

    def __init__(self, target: str, stream_token: str, short_token: str, engine: str = "synthetic") -> None:
        """Begins both."""
        self._endless: dict[str, Any] = {
            "prompt": "a",
            "stopping": {"max_output_tokens": MOST_TOKENS[engine], "ignore_eos": True},
        }
        self.arrivals: list[float] = []
        self.failed = 0
        self.answered: list[tuple[float, float]] = []
        """For each short answer, when it was asked for and how many seconds it took."""
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

    def seconds_to_answer(self, begin: float, end: float) -> list[float]:
        """How long each short answer took that was asked for within a span of time."""
        return [seconds for since, seconds in self.answered if begin <= since < end]

    def _stream(self) -> None:
        while not self._is_over.is_set():
            try:
                with connect_with(self._target, self._tokens[0]) as caller:
                    while not self._is_over.is_set():
                        self._read(caller)
            except grpc.RpcError:
                self.failed += 1
                time.sleep(0.1)

    def _read(self, caller: Caller) -> None:
        stream: Any = caller.stub.StreamGenerate(request(**self._endless), timeout=60)
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
                    begin = time.monotonic()
                    call(request(**SHORT).SerializeToString(), timeout=10, metadata=bearer(self._tokens[1]))
                    self.answered.append((begin, time.monotonic() - begin))
            except grpc.RpcError:
                self.failed += 1


class Attacker:
    """A process that attacks once, and keeps its connections until it is stopped."""

    def __init__(self, name: str, address: str, key: str, metrics: str) -> None:
        """Is ready to attack, with what a `Target` has."""
        context = get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_attack, args=(other, name, address, key, metrics))
        self._process.start()
        self._connection.recv()

    def attack(self) -> None:
        """Attacks, and returns when that is over or has taken too long."""
        self._connection.send(None)
        self._connection.poll(MOST_ATTACK_SECONDS)

    def stop(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.join()


def _attack(connection: "Connection", name: str, address: str, key: str, metrics: str) -> None:
    """What that process does."""
    os.nice(ATTACKERS_NICENESS)
    with ExitStack() as held:
        connection.send("ready")
        connection.recv()
        ATTACKS[name](Target(address, key, metrics, held))
        connection.send("over")
        connection.recv()


def measure(name: str, python: str, variables: dict[str, str], engine: str) -> list[float]:
    """What `main` prints of one attack: milliseconds, MiB and failed calls."""
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys.json"
        stream, short = (add_key(keys, key) for key in ("stream", "short"))
        narrow = add_key(keys, "attacker", max_concurrent=4)
        flags = ["--engine", engine, *OPTIONS[engine], "--keys-file", str(keys)]
        flags += ["--stall-timeout", "5", "--receive-timeout", "5"]
        flags += ["--metrics-listen", "127.0.0.1:0", *(FAST if name in LONG_ANSWERS and engine == "synthetic" else ())]
        with start_server(*flags, python=python, **variables) as server:
            resource.prlimit(server.process.pid, resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
            attacker = Attacker(name, server.target, narrow, str(server.wait_for("metrics")["address"]))
            try:
                honest = Honest(server.target, stream, short, engine)
                time.sleep(1)
                return _observe(server, honest, attacker)
            finally:
                attacker.stop()


def _observe(server: ServerProcess, honest: Honest, attacker: Attacker) -> list[float]:
    quiet_from = time.monotonic()
    time.sleep(QUIET_SECONDS)
    attack_from = time.monotonic()
    before = resident_bytes(server)
    failed_before = honest.failed
    attacker.attack()
    time.sleep(max(0.0, attack_from + ATTACK_SECONDS - time.monotonic()))
    attack_until = time.monotonic()
    while time.monotonic() < attack_until + SETTLE_SECONDS and resident_bytes(server) > before + NEAR_BYTES:
        time.sleep(0.5)
    after, highest = resident_bytes(server), peak_bytes(server)
    failed = honest.failed - failed_before
    honest.stop()
    gaps = honest.longest_gap(quiet_from, attack_from), honest.longest_gap(attack_from, attack_until)
    waits = honest.seconds_to_answer(attack_from, attack_until) or [math.nan]
    seconds = *gaps, median(waits), max(waits)
    return [*(one * 1000 for one in seconds), *(value / (1 << 20) for value in (before, highest, after)), failed]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="attacks whose name matches this regular expression")
    parser.add_argument("--runs", type=int, default=1, help="how often each attack is measured")
    parser.add_argument("--before", type=Path, help="another checkout, whose server is attacked, too")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs the servers")
    parser.add_argument("--engine", default="synthetic", choices=MOST_TOKENS)
    parser.add_argument("--transport", default="grpcio", choices=("grpcio", "http2"))
    arguments = parser.parse_args()
    before: Path | None = arguments.before
    now = _source(Path(__file__).parents[2]) | {"DOHERTY_TRANSPORT": arguments.transport}
    servers: dict[str, dict[str, str]] = {"now": now}
    if before is not None:
        servers = {"before": _source(before), **servers}
    print(
        "| attack | server | gap without, ms | gap with, ms | short answers, median ms | longest "
        "| RSS before, MiB | highest | after | failed calls |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in ATTACKS:
        if not re.search(arguments.only, name):
            continue
        runs: dict[str, list[list[float]]] = {which: [] for which in servers}
        for _ in range(arguments.runs):
            for which, variables in servers.items():
                runs[which].append(measure(name, arguments.python, variables, arguments.engine))
        for which, measured in runs.items():
            *figures, failed = zip(*measured, strict=True)
            row = " | ".join(f"{median(figure):.0f}" for figure in figures)
            print(f"| {name} | {which} | {row} | {sum(failed):.0f} |", flush=True)


def _source(checkout: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(str(checkout / part) for part in ("client", "engine", "service"))}


if __name__ == "__main__":
    main()
