"""Measures how long a slot stays taken after its caller has left.

`PYTHONPATH=tests python benchmarks/cancel.py [ENGINE] [ROUNDS] [--smg]`. A server with one slot works on one request
while another request waits. After a second, the first request is ended in one of several ways. The waiting request gets
the slot at the arrival of its first message, minus the time from slot to first token that the server reports. This
overestimates the time by the message's way to the client. Target: one engine step (or one batch of a prompt) and 50 ms.
With `--smg`, the first request comes from OpenAI's client through the gateway SMG, and the client hangs up.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import grpc
from openai import OpenAI

from doherty.v1 import generation_service_pb2_grpc
from support.door import start_door
from support.server import start_server
from support.smg import start_smg, write_synthetic_tokenizer
from support.wire import SECONDS, Caller, connect, request

ENGINES = {
    "synthetic": ("--engine", "synthetic", "-o", "slots=1", "-o", "prefill_tokens_per_second=500"),
    "llamacpp": ("-o", "slots=1", "-o", "prompt_cache=false"),
}
ENDLESS = {"max_output_tokens": 1000, "ignore_eos": True}
STAGES: dict[str, dict[str, Any]] = {
    "tokens flow": {"prompt": "Tell me a story.", "stopping": ENDLESS},
    "tokens flow, with logprobs": {"prompt": "Tell me a story.", "stopping": ENDLESS, "output": {"top_logprobs": 5}},
    # Some 2,500 tokens, which take either engine seconds.
    "prompt is computed": {"prompt": "The quick brown fox jumps over the lazy dog. " * 250, "stopping": ENDLESS},
}
LIMIT = 1.0
"""The event happens after this many seconds. By then, tokens are generated if the prompt is short, and the other
request waits."""

CHILD = """
import sys, grpc
from doherty.v1 import generation_service_pb2_grpc, request_pb2
stub = generation_service_pb2_grpc.GenerationServiceStub(grpc.insecure_channel(sys.argv[1]))
for _ in stub.StreamGenerate(request_pb2.GenerateRequest.FromString(sys.stdin.buffer.read())):
    pass
"""


class Victim:
    """The request that is ended, on a separate channel."""

    def __init__(self, target: str, fields: dict[str, Any], *, unary: bool, timeout: float | None = None) -> None:
        """Sends the request."""
        self.channel = grpc.insecure_channel(target)
        stub = generation_service_pb2_grpc.GenerationServiceStub(self.channel)
        method: Any = stub.Generate.future if unary else stub.StreamGenerate
        self.ends_at = time.monotonic() + LIMIT
        self.call = method(request(**fields), timeout=timeout)
        self._threads = ThreadPoolExecutor(1)
        self._read = self._threads.submit(self.call.result if unary else partial(list, self.call))

    def close(self) -> None:
        """Waits for the end of the request."""
        self.channel.close()
        self._read.exception(SECONDS)  # an error is the expected end
        self._threads.shutdown()


class VictimProcess:
    """The request that is ended, in another process."""

    def __init__(self, target: str, fields: dict[str, Any]) -> None:
        """Sends the request."""
        self.ends_at = time.monotonic() + LIMIT
        self.process = subprocess.Popen([sys.executable, "-c", CHILD, target], stdin=subprocess.PIPE)
        if self.process.stdin is not None:
            self.process.stdin.write(request(**fields).SerializeToString())
            self.process.stdin.close()

    def close(self) -> None:
        """Waits for the end of the request."""
        self.process.wait(SECONDS)


class GatewayVictim:
    """The request that is ended, from OpenAI's client through SMG, which must be running."""

    def __init__(self, base: str) -> None:
        """Sends the request."""
        self.client = OpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0)
        self.ends_at = time.monotonic() + LIMIT
        self.events = self.client.completions.create(
            model="synthetic", prompt="Hi", max_tokens=1000, stream=True, extra_body={"ignore_eos": True}
        )

    def close(self) -> None:
        """Closes its connections."""
        self.client.close()


@contextmanager
def waiting(caller: Caller, threads: ThreadPoolExecutor) -> "Iterator[Future[float]]":
    """A request that waits for the slot, and returns when it got the slot."""

    def wait() -> float:
        wire = request(prompt="Hi", stopping={"max_output_tokens": 1})
        (only,) = caller.stub.StreamGenerate(wire, timeout=SECONDS)
        timings = only.summary.timings
        worked = timings.time_to_first_token.ToNanoseconds() - timings.queue.ToNanoseconds()
        return time.monotonic() - worked / 1e9

    caller.wait_until(lambda now: (now.running, now.queued) == (1, 0))
    freed = threads.submit(wait)
    caller.wait_until(lambda now: (now.running, now.queued) == (1, 1))
    yield freed


def measure(caller: Caller, start: Callable[[], Any], end: Callable[[Any], float]) -> float:
    """Returns the seconds from the event, whose time `end` returns, to the free slot."""
    with ThreadPoolExecutor(1) as threads, closing(start()) as victim, waiting(caller, threads) as freed:
        event = end(victim)
        return freed.result() - event


def acts(act: Callable[[Any], object]) -> Callable[[Any], float]:
    """An event that ends the request."""

    def end(victim: Any) -> float:
        time.sleep(max(0.0, victim.ends_at - time.monotonic()))
        event = time.monotonic()
        act(victim)
        return event

    return end


def ways(target: str, fields: dict[str, Any]) -> Iterator[tuple[str, str, Callable[[], Any], Callable[[Any], float]]]:
    """The call, the event, the function that starts the request, and the function that ends it."""
    limited = fields | {"stopping": fields["stopping"] | {"time_limit": f"{LIMIT}s"}}
    for unary in (False, True):
        kind = "unary" if unary else "stream"
        start = partial(Victim, target, fields, unary=unary)
        yield kind, "cancel", start, acts(lambda victim: victim.call.cancel())
        yield kind, "connection closed", start, acts(lambda victim: victim.channel.close())
        yield kind, "deadline", partial(start, timeout=LIMIT), lambda victim: victim.ends_at
        yield kind, "time_limit", partial(Victim, target, limited, unary=unary), lambda victim: victim.ends_at
    yield "stream", "kill -9", partial(VictimProcess, target, fields), acts(lambda victim: victim.process.kill())


@contextmanager
def gateway_ways(door: str) -> Iterator[tuple[Callable[[], Any], Callable[[Any], float]]]:
    """The functions that start and end the request behind SMG."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = write_synthetic_tokenizer(Path(folder))
        with start_smg([door], "--tokenizer-path", str(tokenizer)) as base:
            yield partial(GatewayVictim, base), acts(lambda victim: victim.events.close())


def measure_gateway(rounds: int) -> None:
    """Prints the row of SMG."""
    with start_door(*ENGINES["synthetic"]) as server, connect(server.target) as caller:
        with gateway_ways(server.door) as (start, end):
            times = [measure(caller, start, end) * 1e3 for _ in range(rounds)]
        print(f"| tokens flow | stream through SMG | connection closed | {median(times):.1f} | {max(times):.1f} |")


def main() -> None:
    """Measures every combination, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", nargs="?", choices=sorted(ENGINES), default="synthetic")
    parser.add_argument("rounds", nargs="?", type=int, default=20)
    parser.add_argument("--smg", action="store_true", help="only through SMG, with the synthetic engine")
    arguments = parser.parse_args()
    print(f"{arguments.engine}: ms from the event to the free slot, {arguments.rounds} rounds\n")
    print(f"| stage | call | event | median | highest |\n|{'---|' * 5}")
    if arguments.smg:
        measure_gateway(arguments.rounds)
        return
    with start_server(*ENGINES[arguments.engine]) as server, connect(server.target) as caller:
        for stage, fields in STAGES.items():
            for kind, event, start, end in ways(server.target, fields):
                times = [measure(caller, start, end) * 1e3 for _ in range(arguments.rounds)]
                print(f"| {stage} | {kind} | {event} | {median(times):.1f} | {max(times):.1f} |", flush=True)


if __name__ == "__main__":
    main()
