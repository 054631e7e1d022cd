"""Runs one window: puts a load on a server for a time, and returns the figures."""

import json
import math
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from transport_bench.attribution import Floats, Matched, Seen, count_records, match, read_log
from transport_bench.build import Programs
from transport_bench.errors import BenchmarkError
from transport_bench.loads import Load
from transport_bench.machine import busy_seconds, cores
from transport_bench.rows import Row
from transport_bench.server import Server

_PATIENCE = 60.0
_ENVIRONMENT = {"PYTHONPATH": str(Path(__file__).parents[1])}


@dataclass(frozen=True)
class Figures:
    """The figures of a window. Latencies are those that the server added; nan means that there was no sample."""

    tokens_per_second: float
    """The delivered tokens."""
    delivered: float
    """The delivered share of the tokens that were due; 1 if the speed is not limited."""
    requests_per_second: float
    """The number of answers that ended."""
    cpu_per_token: float
    """CPU time of the server's process in microseconds. It includes the engine, if the engine has no process of its
    own."""
    cpu_per_request: float
    """As above."""
    both_cpu_per_token: float
    """As above, for the server and its caller together."""
    latency_p50: float
    """The time of a token from the engine to the caller, in milliseconds."""
    latency_p99: float
    gap_p99: float
    """The time between two messages of an answer, in milliseconds."""
    ttft_p50: float
    """The time from the request to the first token in milliseconds, without the engine's part."""
    ttft_p99: float
    server_load: float
    """The share of its core that the server used."""
    caller_load: float
    """The share of its core that the caller used."""
    other_load: float
    """The number of cores that other programs used; 0 on a quiet machine."""


NO_FIGURES = Figures(**dict.fromkeys((field.name for field in fields(Figures)), math.nan))


def measure(server: Server, row: Row, load: Load, programs: Programs, seconds: float) -> Figures:
    """Runs one window.

    Raises:
        BenchmarkError: Something failed, or the caller did not receive what the engine generated.
    """
    server.settle()
    before = count_records(server.engine_log)
    others = _Others(server)
    process = subprocess.Popen(
        _command(server, row, load, seconds, programs),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | _ENVIRONMENT,
    )
    time.sleep(load.warm_up + seconds / 2)
    server.scrape()
    output, error = process.communicate(timeout=_PATIENCE)
    if process.returncode:
        raise BenchmarkError(f"The load on {row.title} failed: {error[-2000:]}")
    seen = Seen.read(output)
    matched = match(seen, read_log(server.engine_log, before))
    return _figures(seen, matched, load, others.load())


def measure_engine(log: Path, load: Load, seconds: float) -> Figures:
    """Runs one window of the engine alone, which has no latencies.

    Raises:
        BenchmarkError: The engine failed.
    """
    program = ["taskset", "--cpu-list", str(cores()[0]), sys.executable, "-m", "transport_bench.engine_alone"]
    done = subprocess.run(
        [*program, load.name, str(load.warm_up), str(seconds), str(log)],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | _ENVIRONMENT,
        timeout=_PATIENCE,
    )
    if done.returncode:
        raise BenchmarkError(f"The engine alone failed: {done.stderr[-2000:]}")
    printed = json.loads(done.stdout)
    pace = printed["tokens"] / printed["seconds"]
    return replace(
        NO_FIGURES,
        tokens_per_second=pace,
        delivered=pace / (load.streams * load.pace) if load.pace else 1.0,
        requests_per_second=printed["answers"] / printed["seconds"],
        cpu_per_token=_ratio(printed["cpu_seconds"], printed["tokens"]) * 1e6,
        cpu_per_request=_ratio(printed["cpu_seconds"], printed["answers"]) * 1e6,
        server_load=printed["cpu_seconds"] / printed["seconds"],
    )


class _Others:
    """Measures what else runs on the machine."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._began = time.monotonic()
        self._before = self._used()

    def load(self) -> float:
        """Returns the number of cores that it has used since."""
        return max(0.0, self._used() - self._before) / (time.monotonic() - self._began)

    def _used(self) -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        own = self._server.cpu_seconds() + time.process_time() + children.ru_utime + children.ru_stime
        return busy_seconds() - own


def _command(server: Server, row: Row, load: Load, seconds: float, programs: Programs) -> list[str]:
    protocol = row.whole_protocol if load.whole else row.protocol
    program = [sys.executable, "-m", "transport_bench.sdk_load"] if row.with_sdk else [str(programs.load)]
    options: dict[str, object] = {
        "port": server.port,
        "protocol": protocol,
        "streams": load.streams,
        "per-connection": row.per_connection,
        "tokens": load.answer_tokens,
        "warm-up": load.warm_up,
        "seconds": seconds,
        "server": server.process.pid,
        "burst-every": load.burst_every,
    }
    if server.key:
        options["key"] = server.key
    flags = ["--stagger"] if load.staggered else []
    return [*program, *(part for name, value in options.items() for part in (f"--{name}", str(value))), *flags]


def _figures(seen: Seen, matched: Matched, load: Load, others: float) -> Figures:
    begin, end = seen.begin.time, seen.end.time
    seconds = end - begin
    arrived, tokens = _joined(matched.arrived), _joined(matched.tokens)
    inside = (arrived >= begin) & (arrived < end)
    count = float(tokens[inside].sum())
    added = np.repeat(arrived[inside] - _joined(matched.made)[inside], tokens[inside].astype(int))
    first_arrived = np.array(matched.first_arrived)
    first = np.array(matched.first_added)[(first_arrived >= begin) & (first_arrived < end)]
    ended = float(sum(begin <= when < end for when in matched.ended))
    server_cpu = seen.end.server_cpu - seen.begin.server_cpu
    own_cpu = seen.end.own_cpu - seen.begin.own_cpu
    return Figures(
        tokens_per_second=count / seconds,
        delivered=count / seconds / (load.streams * load.pace) if load.pace else 1.0,
        requests_per_second=ended / seconds,
        cpu_per_token=_ratio(server_cpu, count) * 1e6,
        cpu_per_request=_ratio(server_cpu, ended) * 1e6,
        both_cpu_per_token=_ratio(server_cpu + own_cpu, count) * 1e6,
        latency_p50=_quantile(added, 0.5),
        latency_p99=_quantile(added, 0.99),
        gap_p99=_quantile(_gaps(seen), 0.99),
        ttft_p50=_quantile(first, 0.5),
        ttft_p99=_quantile(first, 0.99),
        server_load=server_cpu / seconds,
        caller_load=own_cpu / seconds,
        other_load=others,
    )


def _joined(parts: list[Floats] | list[np.ndarray]) -> Floats:
    return np.concatenate(parts).astype(np.float64) if parts else np.empty(0)


def _gaps(seen: Seen) -> Floats:
    """Returns the times between the messages of each answer within the window."""
    gaps = []
    for request in seen.requests:
        times = np.array(request["times"]) * 1e-9
        inside = times[(times >= seen.begin.time) & (times < seen.end.time)]
        gaps.append(np.diff(inside))
    return _joined(gaps)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def _quantile(seconds: Floats, share: float) -> float:
    """Returns quantiles by nearest rank, in milliseconds."""
    return float(np.quantile(seconds, share, method="inverted_cdf")) * 1e3 if len(seconds) else float("nan")
