"""What an attack costs the callers that are served at the same time.

`PYTHONPATH=tests python benchmarks/attack/attack.py [--only PATTERN] [--runs N] [--part I/N] [--save NAME]
[--before PATH] [--python PATH] [--engine ENGINE] [--transport TRANSPORT]`. Each attack gets a new server with keys,
limits and metrics, whose address space is limited to 4 GiB. During the attack, an honest caller reads a stream (of 200
messages a second, if the engine is synthetic), and another one requests short answers; each has its own key. The
attacker is a separate process with a low priority, as if it ran on another machine. The table has the longest gap of
the stream without and with the attack; for how long the server's main thread ran in the latter, and waited for a
processor; how long a thread of the honest caller waited for one (it is in this process); and the memory (RSS) before
the attack, at its highest, and after the attack. The memory after the attack is taken as soon as it is close to the
memory before, and at most 40 seconds after the attack; until then the attacker keeps its connections. The last column
is the number of honest calls that failed.

`--runs` repeats each attack; the table then has the medians, and the sum of the failed calls. `--before` measures the
server of another checkout, too, in turns, and `--python` runs the servers with another interpreter, and its grpcio.
`--save` writes every run to results/NAME.json, for table.py. `--part I/N` measures every N-th attack from the I-th on
(1 is the first), so that N processes share the attacks on a machine with many cores. Without an installed command
`doherty`, PYTHONPATH names client, engine, service and tests. Loopback only.
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import grpc

import table
from engine_work import ENGINE_WORK
from figures import Figures, Run, save
from holding import HOLDING, LONG_ANSWERS
from main_thread import MainThread, OwnThreads
from messages import MESSAGES
from protocol import PROTOCOL
from side_work import SIDE_WORK
from support.measuring import longest_gap, python_path
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
MAX_ATTACK_SECONDS = 60.0
STREAM_SECONDS = 300.0
"""The deadline of the honest stream, which is longer than a run: on llamacpp it takes more than a minute."""
SETTLE_SECONDS = 40.0
ATTACKER_NICENESS = 10
MIB = 1 << 20
NEAR_BYTES = 20 * MIB
MAX_TOKENS = {"synthetic": 8000, "llamacpp": 1900}
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
"""Options for fast long answers. The engine still makes 200 steps per second."""


class Honest:
    """A caller that reads a stream, and one that requests short answers, each on a new connection."""

    def __init__(self, target: str, stream_token: str, short_token: str, engine: str = "synthetic") -> None:
        """Starts both in threads."""
        self._endless: dict[str, Any] = {
            "prompt": "a",
            "stopping": {"max_output_tokens": MAX_TOKENS[engine], "ignore_eos": True},
        }
        self.arrivals: list[float] = []
        self.failed = 0
        self.answered: list[tuple[float, float]] = []
        """For each short answer, when it was requested and how many seconds it took."""
        self._target = target
        self._tokens = stream_token, short_token
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._stream, self._ask)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stops both."""
        self._is_over.set()
        for thread in self._threads:
            thread.join(60)

    def longest_gap(self, begin: float, end: float) -> tuple[float, float]:
        """Begin and end of the longest time without a delta within a span of time."""
        return longest_gap(self.arrivals, begin, end)

    def seconds_to_answer(self, begin: float, end: float) -> list[float]:
        """How long the short answers took that were requested within a span of time."""
        return [seconds for since, seconds in self.answered if begin <= since < end]

    def _stream(self) -> None:
        while not self._is_over.is_set():
            try:
                with connect_with(self._target, self._tokens[0]) as caller:
                    while not self._is_over.is_set():
                        self._read(caller)
            except grpc.RpcError as error:
                self._count(error)
                time.sleep(0.1)

    def _read(self, caller: Caller) -> None:
        stream: Any = caller.stub.StreamGenerate(request(**self._endless), timeout=STREAM_SECONDS)
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
            except grpc.RpcError as error:
                self._count(error)

    def _count(self, error: grpc.RpcError) -> None:
        """Counts a failed call, and prints its status for people who look for the cause."""
        self.failed += 1
        print(f"an honest call failed: {error!r}", file=sys.stderr, flush=True)


class Attacker:
    """A process that attacks once, and then keeps its connections open until it is stopped."""

    def __init__(self, name: str, address: str, key: str, metrics: str) -> None:
        """Starts the process, and waits until it is ready. The arguments are fields of `Target`."""
        context = get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_attack, args=(other, name, address, key, metrics))
        self._process.start()
        self._connection.recv()

    def attack(self) -> None:
        """Starts the attack; returns when it has ended, or after MAX_ATTACK_SECONDS."""
        self._connection.send(None)
        self._connection.poll(MAX_ATTACK_SECONDS)

    def stop(self) -> None:
        """Kills the process."""
        self._process.kill()
        self._process.join()


def _attack(connection: "Connection", name: str, address: str, key: str, metrics: str) -> None:
    """The main function of an `Attacker`'s process."""
    os.nice(ATTACKER_NICENESS)
    with ExitStack() as held:
        connection.send("ready")
        connection.recv()
        ATTACKS[name](Target(address, key, metrics, held))
        connection.send("over")
        connection.recv()


def measure(name: str, python: str, variables: dict[str, str], engine: str) -> Figures:
    """Attacks a new server once."""
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
                with MainThread(server.process.pid) as main_thread, OwnThreads() as own_threads:
                    return _observe(server, honest, attacker, main_thread, own_threads)
            finally:
                attacker.stop()


def _observe(
    server: ServerProcess, honest: Honest, attacker: Attacker, main_thread: MainThread, own_threads: OwnThreads
) -> Figures:
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
    waits = [seconds * 1000 for seconds in honest.seconds_to_answer(attack_from, attack_until)]
    gap_without, gap_with = honest.longest_gap(quiet_from, attack_from), honest.longest_gap(attack_from, attack_until)
    ran, waited = main_thread.ran_and_waited(*gap_with)
    return Figures(
        gap_without=(gap_without[1] - gap_without[0]) * 1000,
        gap_with=(gap_with[1] - gap_with[0]) * 1000,
        main_thread_ran=ran,
        main_thread_waited=waited,
        short_median=median(waits) if waits else None,
        short_longest=max(waits, default=None),
        rss_before=before / MIB,
        rss_highest=highest / MIB,
        rss_after=after / MIB,
        failed_calls=failed,
        caller_waited=own_threads.longest_wait(*gap_with),
    )


def part(text: str) -> tuple[int, int]:
    """Parses I/N: two numbers, with 1 <= I <= N."""
    index, slash, parts = text.partition("/")
    if not slash or not 1 <= int(index) <= int(parts):
        raise argparse.ArgumentTypeError(f"{text} is not I/N with 1 <= I <= N")
    return int(index), int(parts)


def main() -> None:
    """Measures, prints the table, and saves the runs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="attacks whose name matches this regular expression")
    parser.add_argument("--runs", type=int, default=1, help="how often each attack is measured")
    parser.add_argument("--part", type=part, default=(1, 1), help="I/N: every N-th attack from the I-th on")
    parser.add_argument("--save", help="the name of the file in results/ that gets every run")
    parser.add_argument("--before", type=Path, help="another checkout, whose server is attacked, too")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs the servers")
    parser.add_argument("--engine", default="synthetic", choices=MAX_TOKENS)
    parser.add_argument("--transport", default="grpcio", choices=("grpcio", "http2"))
    arguments = parser.parse_args()
    before: Path | None = arguments.before
    servers = {"now": _environment(Path(__file__).parents[2], arguments.transport)}
    if before is not None:
        servers = {"before": _environment(before, arguments.transport), **servers}
    versions = _versions(arguments.python)
    index, parts = arguments.part
    names = [name for name in ATTACKS if re.search(arguments.only, name)][index - 1 :: parts]
    runs: list[Run] = []
    print(table.header())
    for name in names:
        for _ in range(arguments.runs):
            for server, variables in servers.items():
                figures = measure(name, arguments.python, variables, arguments.engine)
                runs.append(Run(name, server, arguments.transport, arguments.engine, *versions, figures))
                if arguments.save:
                    save(runs, arguments.save)
        for key, measured in table.group(run for run in runs if run.attack == name).items():
            print(table.row(key, measured), flush=True)


def _environment(checkout: Path, transport: str) -> dict[str, str]:
    """The variables that make a server run the code of a checkout, before any other on the path."""
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([python_path(checkout), inherited] if inherited else [python_path(checkout)])
    return {"PYTHONPATH": path, "DOHERTY_TRANSPORT": transport}


def _versions(python: str) -> tuple[str, str]:
    """The versions of an interpreter and of its grpcio."""
    script = "import platform, grpc; print(platform.python_version(), grpc.__version__)"
    version, grpcio = subprocess.run([python, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    return version, grpcio


if __name__ == "__main__":
    main()
