"""Fuzzes the transport `http2`: `PYTHONPATH=tests python benchmarks/fuzz/http2.py [INPUTS] [SEED]`.

Sends INPUTS inputs (1,000,000 by default) from one process per core. Half of them are damaged frames, the others are
requests with damaged headers or messages. Nine of ten go to a connection object without a socket, whose calls echo what
they receive; the others go to a real server over its socket. Prints the seed and the outcomes, and saves them in
results/. The exit code is 1 if a caller saw INTERNAL or UNKNOWN, if a stream or a connection did not end, if the
transport raised an exception, or if the server logged an error, ended, or had requests left.
"""

import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from support.fuzz.http2 import STREAMS, Findings, send_frames, send_streams
from support.fuzz.in_process import InProcess
from support.memory import cpu_seconds, resident_bytes
from support.server import ServerProcess, start_server
from support.wire import connect

RESULTS = Path(__file__).parent / "results"
INPUTS = 1_000_000
ROUND, FRAMES, OWN_STREAMS = 1_000, 500, 400
"""The inputs of a round, and how many of them go to a connection object: damaged frames, and requests."""
MAX_FAILURES = 20
FLAGS = ("-o", "tokens_per_second=0", "-o", "context_tokens=2048", "--max-output-tokens", "24", "--transport", "http2")


def main() -> None:
    """Sends the inputs, prints the outcomes, and saves them."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else INPUTS
    seed = sys.argv[2] if len(sys.argv) > 2 else "1"  # noqa: PLR2004 - the second argument
    print(f"seed {seed}", flush=True)
    with start_server("--engine", "synthetic", *FLAGS) as server:
        begun, first = time.monotonic(), resident_bytes(server)
        findings = Findings()
        errors = 0
        for part in _send_all(server.target, seed, count):
            findings.add(part)
            errors += sum(line.get("level") == "error" for line in server.read())
            print(f"\r{findings.inputs} inputs", end="", file=sys.stderr, flush=True)
            if server.process.poll() is not None or len(findings.failures) > MAX_FAILURES:
                break
        seconds = time.monotonic() - begun
        last = resident_bytes(server) if server.process.poll() is None else 0
        server_seconds = 0.0 if server.process.poll() is not None else cpu_seconds(server.process.pid)
        exit_code = _end(server)
    figures = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "seed": seed,
        "inputs": findings.inputs,
        "seconds": round(seconds),
        "server_cpu_seconds": round(server_seconds),
        "exit_code": exit_code,
        "errors_in_the_log": errors,
        "resident_mib": [first >> 20, last >> 20],
        "outcomes": dict(findings.outcomes.most_common()),
        "failures": findings.failures[:MAX_FAILURES],
    }
    text = json.dumps(figures, indent=2)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"http2-{findings.inputs}.json").write_text(text + "\n")
    sys.exit(1 if findings.failures or errors or exit_code else 0)


def _send_all(target: str, seed: str, count: int) -> Iterator[Findings]:
    rounds = range(0, count, ROUND)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(partial(_send_round, target), [f"{seed}-{first}" for first in rounds])


def _send_round(target: str, seed: str) -> Findings:
    """Sends the inputs of a seed."""
    findings = asyncio.run(_send_in_process(seed))
    while findings.inputs < ROUND - STREAMS:
        findings.add(send_streams(target, f"{seed}-streams-{findings.inputs}"))
    while findings.inputs < ROUND:
        findings.add(send_frames(target, f"{seed}-frames-{findings.inputs}"))
    return findings


async def _send_in_process(seed: str) -> Findings:
    server, findings = InProcess(), Findings()
    while findings.inputs < FRAMES:
        findings.add(await server.send_frames(f"{seed}-own-frames-{findings.inputs}"))
    while findings.inputs < FRAMES + OWN_STREAMS:
        findings.add(await server.send_streams(f"{seed}-own-streams-{findings.inputs}"))
    return findings


def _end(server: ServerProcess) -> int:
    """Waits until the server has no requests left, and stops it; returns its exit code."""
    if server.process.poll() is not None:
        return server.wait() or 1
    with connect(server.target) as caller:
        caller.wait_until(lambda now: now.running == 0 and now.queued == 0)
    return server.stop()


if __name__ == "__main__":
    main()
