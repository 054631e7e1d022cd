"""What a server takes before anybody asks it anything, and for streams that are open.

`python benchmarks/transport/footprint.py [ROUNDS]`: CPU time and resident memory of `doherty serve --engine synthetic`
when it says SERVING (to reach: below a second, and below 90 MB), and the memory that 1,000 open streams add, for this
server and for those that it is compared with. What `import doherty` costs, benchmarks/imports.py tells.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

from transport_bench.build import Programs, build
from transport_bench.errors import BenchmarkError
from transport_bench.loads import Load
from transport_bench.machine import cores, cpu_seconds, resident_bytes
from transport_bench.rows import ROWS, Row
from transport_bench.server import Server, started

STREAMS = 1000
MEGABYTE = 1e6
SECONDS = 60
LOAD = Load("open", "1,000 streams that get a token a second", STREAMS, 1, answer_tokens=1000)


def start_up() -> tuple[float, float, float]:
    """CPU seconds, seconds and bytes until the server says that it is ready."""
    doherty = Path(sys.executable).with_name("doherty")
    command = [str(doherty), "serve", "--engine", "synthetic", "--listen", "127.0.0.1:0"]
    began = time.monotonic()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        if not any(json.loads(line)["event"] == "ready" for line in process.stderr or ()):
            raise BenchmarkError("The server did not start.")
        sample = cpu_seconds(process.pid), time.monotonic() - began, float(resident_bytes(process.pid))
        process.terminate()
        return sample


def open_streams(row: Row, programs: Programs) -> tuple[float, float]:
    """Bytes of a server that has nothing to do, and what each stream adds."""
    with tempfile.TemporaryDirectory() as folder, started(row, LOAD, Path(folder) / "server", programs) as server:
        with _held(server, replace(row, per_connection=1), 1, programs):
            pass  # what is made for the first request is no part of a stream
        server.settle()
        before = resident_bytes(server.process.pid)
        with _held(server, row, STREAMS, programs):
            return before, (resident_bytes(server.process.pid) - before) / STREAMS


@contextmanager
def _held(server: Server, row: Row, streams: int, programs: Programs) -> Iterator[None]:
    """So many open streams, each of which has had its first token."""
    options = {
        "port": server.port,
        "protocol": row.protocol,
        "streams": streams,
        "per-connection": row.per_connection,
        "tokens": LOAD.answer_tokens,
    }
    if server.key:
        options["key"] = server.key
    flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    command = [str(programs.load), *flags, "--hold"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout is None or process.stdout.readline() != "open\n":
            raise BenchmarkError(f"The streams of {row.title} could not be opened.")
        yield
        process.communicate(timeout=SECONDS)


def main(rounds: int) -> None:
    """Measures and prints."""
    programs = build()
    os.sched_setaffinity(0, {cores()[1]})
    print("| until it is ready | median | lowest | highest |\n|---|---|---|---|")
    columns = zip(*(start_up() for _ in range(rounds)), strict=True)
    for name, unit, values in zip(("CPU seconds", "seconds", "resident MB"), (1, 1, MEGABYTE), columns, strict=True):
        scaled = [value / unit for value in values]
        print(f"| {name} | {median(scaled):.2f} | {min(scaled):.2f} | {max(scaled):.2f} |")
    print(f"\n| server | on a connection | resident MB idle | kB a stream, {STREAMS:,} open |\n|---|---|---|---|")
    for name in ("stream", "multiplex", "naive", "sse", "callback"):
        if ROWS[name].kind in programs.missing():
            continue
        for together in (1,) if name == "sse" else (1, 100) if name != "multiplex" else (8, 100):
            row = replace(ROWS[name], per_connection=together)
            idle, each = open_streams(row, programs)
            print(f"| {row.title} | {together} | {idle / MEGABYTE:.1f} | {each / 1e3:.1f} |", flush=True)


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
    except BenchmarkError as error:
        sys.exit(str(error))
