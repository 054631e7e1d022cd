"""The embedded engine behind the service beside llama.cpp's own HTTP server.

`PYTHONPATH=tests python benchmarks/embedded_pace.py [PAIRS]`. Both have the packaged model, the same xllamacpp, one
thread, batches of 128 and no cache in RAM, each in a process of its own; one of them works at a time. A pair is one
stream from each, of 64 greedy tokens behind a prompt that neither has seen, in an order that alternates. Needs a quiet
machine: other work shows as a wide middle half.

Printed are medians and the middle half of Doherty's figure divided by the other's, pair by pair: the time to the first
token, the tokens per second from then on, and the processor time per token of the busiest thread, which is the one that
decodes. The last one hardly depends on what else runs. Target: 0.98 to 1.0 of the tokens per second.
"""

import http.client
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

from doherty import Client, GenerateOptions, RawText
from support.server import start_server
from support.smollm2 import packaged_model

TOKENS = 64
WORDS = [
    "river",
    "stone",
    "paper",
    "cloud",
    "engine",
    "garden",
    "silver",
    "window",
    "letter",
    "bridge",
    "summer",
    "market",
    "forest",
    "winter",
    "copper",
]

PEER = """
import os, sys
os.environ["OMP_WAIT_POLICY"] = "passive"
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.hostnames, params.port = ["127.0.0.1"], 0
params.n_ctx, params.n_parallel, params.kv_unified = 8192, 4, True
params.n_batch = params.n_ubatch = 128
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.cache_ram_mib, params.verbosity = 0, -1
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


class Figures(NamedTuple):
    """The measurement of one stream."""

    first_token: float
    """The time to the first token, in seconds."""
    per_second: float
    """The tokens per second after the first message."""
    processor: float
    """The CPU time per token of the busiest thread, in seconds."""


class Side:
    """One of the two servers."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def run(self, prompt: str) -> Figures:
        """Measures one stream."""
        before = self._threads()
        (begun, _), (first, at_first), *later = self.moments(prompt)
        after = self._threads()
        tokens = sum(count for _, count in later)
        busiest = max(after[thread] - before.get(thread, 0) for thread in after)
        return Figures(first - begun, tokens / (later[-1][0] - first), busiest / 1e9 / (tokens + at_first))

    def moments(self, prompt: str) -> Iterator[tuple[float, int]]:
        """Yields the time at which the prompt is sent, with 0, and then when tokens arrive, with their number."""
        raise NotImplementedError

    def _threads(self) -> dict[str, int]:
        """Returns the CPU time of each thread, in nanoseconds."""
        tasks = Path(f"/proc/{self._pid}/task").iterdir()
        return {task.name: int((task / "schedstat").read_text().split()[0]) for task in tasks}


class Doherty(Side):
    """`doherty serve`, through the SDK."""

    def __init__(self, pid: int, client: Client) -> None:
        super().__init__(pid)
        self._client = client

    def moments(self, prompt: str) -> Iterator[tuple[float, int]]:
        """Requests raw text, as for the other server."""
        options = GenerateOptions(ignore_eos=True)
        yield time.perf_counter(), 0
        stream = self._client.stream_generate(RawText(prompt), max_output_tokens=TOKENS, temperature=0, options=options)
        with stream:
            for delta in stream:
                yield time.perf_counter(), delta.token_count


class LlamaCpp(Side):
    """llama.cpp's HTTP server."""

    def __init__(self, pid: int, address: str) -> None:
        super().__init__(pid)
        self._address = address.removeprefix("http://")

    def moments(self, prompt: str) -> Iterator[tuple[float, int]]:
        """Uses llama.cpp's own API."""
        body = {"prompt": prompt, "n_predict": TOKENS, "temperature": 0, "ignore_eos": True, "stream": True}
        connection = http.client.HTTPConnection(self._address)  # the server closes the connection after each stream
        connection.connect()
        yield time.perf_counter(), 0
        connection.request("POST", "/completion", json.dumps(body), {"Content-Type": "application/json"})
        with closing(connection), connection.getresponse() as response:
            for line in response:
                chunk: dict[str, Any] = json.loads(line[len(b"data: ") :]) if line.startswith(b"data: ") else {}
                if chunk.get("tokens"):
                    yield time.perf_counter(), len(chunk["tokens"])


@contextmanager
def both() -> Iterator[tuple[Side, Side]]:
    """Runs the two servers."""
    with ExitStack() as stack:
        server = stack.enter_context(start_server("-o", "threads=1"))
        client = stack.enter_context(Client(server.target, timeout=600))
        command = [sys.executable, "-c", PEER, str(packaged_model())]
        peer = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        stack.callback(peer.kill)
        if peer.stdout is None:
            raise AssertionError("its address is read")
        yield Doherty(server.process.pid, client), LlamaCpp(peer.pid, peer.stdout.readline().strip())


def main() -> None:
    """Measures both servers, and prints the table."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 24
    ratios: list[Figures] = []
    ours: list[Figures] = []
    with both() as sides:
        for side in sides:
            side.run("Once upon a time")
        for number in range(pairs):
            order = (0, 1) if number % 2 else (1, 0)
            prompts = [" ".join(random.choices(WORDS, k=12)) for _ in sides]  # noqa: S311 - test data
            measured = {which: sides[which].run(prompts[which]) for which in order}
            ours.append(measured[0])
            ratios.append(Figures(*(own / other for own, other in zip(measured[0], measured[1], strict=True))))
    for name in Figures._fields:
        low, _, high = quantiles([getattr(pair, name) for pair in ratios], n=4)
        ratio, absolute = (median(getattr(pair, name) for pair in figures) for figures in (ratios, ours))
        print(f"{name:12} {ratio:.3f} ({low:.3f} to {high:.3f}); Doherty {absolute:.4g}")


if __name__ == "__main__":
    main()
