"""Starts and stops the measured servers."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from doherty_service.security import changing_keys, new_key
from transport_bench.build import REPOSITORY, Programs
from transport_bench.errors import BenchmarkError
from transport_bench.loads import Load
from transport_bench.machine import children, cores, cpu_seconds
from transport_bench.rows import OTHER_CHECKOUT, OURS, Kind, Row
from transport_bench.vllm import STAND_IN

_START_SECONDS = 30.0
_STOP_SECONDS = 20.0
_QUIET_SECONDS = 0.05
_QUIET_SHARE = 0.02
_VLLM_SAYS = {
    "metrics": re.compile(r'OpenAI server is ready to accept requests bind_address="(\S+)"'),
    "ready": re.compile(r"gRPC server is ready to accept requests addr=(\S+)"),
}


@dataclass(frozen=True)
class Server:
    """A running server."""

    process: "subprocess.Popen[bytes]"
    port: int
    engine_log: Path
    key: str = ""
    metrics: str = ""
    """The address of its metrics; empty if it has none."""
    children: tuple[int, ...] = ()
    """Its child processes."""

    def cpu_seconds(self) -> float:
        """Returns the CPU time of the process and its children."""
        return sum(map(cpu_seconds, (self.process.pid, *self.children)))

    def settle(self) -> None:
        """Waits until the server is idle.

        Raises:
            BenchmarkError: It does not become idle.
        """
        deadline = time.monotonic() + _STOP_SECONDS
        while time.monotonic() < deadline:
            before = self.cpu_seconds()
            time.sleep(_QUIET_SECONDS)
            if self.cpu_seconds() - before < _QUIET_SHARE * _QUIET_SECONDS:
                return
        raise BenchmarkError("A server does not come to rest after its load has gone.")

    def scrape(self) -> None:
        """Reads the metrics once, like Prometheus."""
        if self.metrics:
            with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=_START_SECONDS) as reply:
                reply.read()


@contextmanager
def started(row: Row, load: Load, folder: Path, programs: Programs) -> Iterator[Server]:
    """Runs a server with the engine for a load, pinned to its core, with its files in `folder`.

    Its child processes, such as the engine process of vLLM's front-end, run on the same core.
    """
    folder.mkdir()
    engine_log, output, keys = folder / "engine", folder / "log", folder / "keys"
    key = ""
    if row.kind in OURS:
        entry, key = new_key("load", {})
        with changing_keys(keys) as kept:
            kept.append(entry)
    command = _command(row.kind, engine_log, keys, load, programs)
    with output.open("wb") as log:
        process = subprocess.Popen(
            ["taskset", "--cpu-list", str(cores()[0]), *command],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=os.environ | _environment(row.kind, programs),
        )
    try:
        addresses = _await_ready(process, output)
        port = int(addresses["ready"].rpartition(":")[2])
        yield Server(process, port, engine_log, key, addresses.get("metrics", ""), children(process.pid))
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _command(kind: Kind, engine_log: Path, keys: Path, load: Load, programs: Programs) -> list[str]:
    options = [f"{name}={value}" for name, value in load.engine_options.items()]
    flags = ["--engine=synthetic", "--listen=127.0.0.1:0", f"--keys-file={keys}", "--metrics-listen=127.0.0.1:0"]
    doherty = ["-m", "transport_bench.servers.doherty", str(engine_log), *flags, *(f"-o{pair}" for pair in options)]
    match kind:
        case Kind.DOHERTY | Kind.HTTP2 | Kind.BEFORE | Kind.HTTP2_BEFORE:
            python = f"{programs.before}/.venv/bin/python" if kind in OTHER_CHECKOUT else sys.executable
            # Older checkouts do not know the flag.
            transport = ["--transport=http2"] if kind in (Kind.HTTP2, Kind.HTTP2_BEFORE) else []
            return [python, *doherty, *transport]
        case Kind.CALLBACK:
            return [str(programs.callback), str(engine_log), str(programs.texts), str(load.pace)]
        case Kind.VLLM:
            of_stand_in = [f"--engine-log={engine_log}", *(f"--engine-option={pair}" for pair in options)]
            flags = ["--python", str(STAND_IN), "--port=0", "--grpc-port=0", "--", *of_stand_in]
            return [str(programs.vllm), "serve", str(programs.vllm_model), *flags]
        case _:
            module = f"transport_bench.servers.{kind.name.lower()}"
            return [sys.executable, "-m", module, str(engine_log), *options]


def _environment(kind: Kind, programs: Programs) -> dict[str, str]:
    here = Path(__file__).parents[1]
    if kind in OTHER_CHECKOUT and programs.before:
        here = programs.before / here.relative_to(REPOSITORY)
    # The stand-in for vLLM's engine is started as a program, which finds its Python on the PATH.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {"PYTHONPATH": str(here), "PATH": path, "NO_COLOR": "1"}


def _await_ready(process: "subprocess.Popen[bytes]", log: Path) -> dict[str, str]:
    """Returns the addresses in the log up to the line that reports readiness, by the names of their events."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        addresses = _addresses(log.read_text().rpartition("\n")[0])
        if "ready" in addresses:
            return addresses
        time.sleep(0.02)
    raise BenchmarkError(f"A server does not start; it said: {log.read_text()[-2000:]}")


def _addresses(log: str) -> dict[str, str]:
    addresses: dict[str, str] = {}
    for line in log.splitlines():
        # gRPC's core writes to the same stream.
        if line.startswith("{"):
            event = json.loads(line)
            addresses[event["event"]] = event.get("address", "")
    # vLLM's front-end tells in words; its HTTP server has the metrics.
    addresses |= {event: match[1] for event, pattern in _VLLM_SAYS.items() if (match := pattern.search(log))}
    return addresses
