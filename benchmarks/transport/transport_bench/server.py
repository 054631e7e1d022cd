"""Starts and stops the servers that are measured."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from doherty_service.security import changing_keys, new_key
from transport_bench.build import Programs
from transport_bench.errors import BenchmarkError
from transport_bench.loads import Load
from transport_bench.machine import cores, cpu_seconds
from transport_bench.rows import Kind, Row

_START_SECONDS = 30.0
_STOP_SECONDS = 20.0
_QUIET_SECONDS = 0.05
_QUIET_SHARE = 0.02
_SLOTS = 64


@dataclass(frozen=True)
class Server:
    """A running server."""

    process: "subprocess.Popen[bytes]"
    port: int
    engine_log: Path
    key: str = ""
    metrics: str = ""
    """Where its metrics are; empty where it has none."""

    def settle(self) -> None:
        """Returns when it has nothing more to do.

        Raises:
            BenchmarkError: it does not come to rest.
        """
        deadline = time.monotonic() + _STOP_SECONDS
        while time.monotonic() < deadline:
            before = cpu_seconds(self.process.pid)
            time.sleep(_QUIET_SECONDS)
            if cpu_seconds(self.process.pid) - before < _QUIET_SHARE * _QUIET_SECONDS:
                return
        raise BenchmarkError("A server does not come to rest after its load has gone.")

    def scrape(self) -> None:
        """Reads its metrics once, as Prometheus does."""
        if self.metrics:
            with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=_START_SECONDS) as reply:
                reply.read()


@contextmanager
def started(row: Row, load: Load, folder: Path, programs: Programs) -> Iterator[Server]:
    """A server with the engine that a load needs, pinned to its core, whose files lie in `folder`."""
    folder.mkdir()
    engine_log, told, keys = folder / "engine", folder / "log", folder / "keys"
    options = {"tokens_per_second": str(load.pace), "slots": str(max(_SLOTS, load.streams))}
    key = ""
    if row.kind is Kind.DOHERTY:
        entry, key = new_key("load", adapters=None, max_concurrent=None, per_minute=None)
        with changing_keys(keys) as kept:
            kept.append(entry)
    command = _command(row.kind, engine_log, keys, options, programs)
    with told.open("wb") as log:
        process = subprocess.Popen(
            ["taskset", "--cpu-list", str(cores()[0]), *command],
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=os.environ | _environment(row.kind),
        )
    try:
        events = _await_ready(process, told)
        port = int(events["ready"]["address"].rpartition(":")[2])
        metrics = events.get("metrics", {}).get("address", "")
        yield Server(process, port, engine_log, key, metrics)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _command(kind: Kind, engine_log: Path, keys: Path, options: dict[str, str], programs: Programs) -> list[str]:
    pairs = [f"{name}={value}" for name, value in options.items()]
    module = [sys.executable, "-m"]
    match kind:
        case Kind.DOHERTY | Kind.BARE:
            flags = ["--engine", "synthetic", "--listen", "127.0.0.1:0", *(f"-o{pair}" for pair in pairs)]
            if kind is Kind.DOHERTY:
                flags += ["--keys-file", str(keys), "--metrics-listen", "127.0.0.1:0"]
            return [*module, "transport_bench.servers.doherty", str(engine_log), *flags]
        case Kind.CALLBACK:
            return [str(programs.callback), str(engine_log), str(programs.texts), options["tokens_per_second"]]
        case _:
            return [*module, f"transport_bench.servers.{kind.name.lower()}", str(engine_log), *pairs]


def _environment(kind: Kind) -> dict[str, str]:
    here = str(Path(__file__).parents[1])
    return {"PYTHONPATH": here, "BARE": "1" if kind is Kind.BARE else ""}


def _await_ready(process: "subprocess.Popen[bytes]", told: Path) -> dict[str, dict[str, str]]:
    """The lines of its log up to the one that says that it is ready, by their events."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        lines = told.read_text().rpartition("\n")[0].splitlines()
        # gRPC's core writes to the same stream.
        events = {line["event"]: line for line in (json.loads(line) for line in lines if line.startswith("{"))}
        if "ready" in events:
            return events
        time.sleep(0.02)
    raise BenchmarkError(f"A server does not start; it said: {told.read_text()[-2000:]}")
