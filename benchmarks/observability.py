"""What metrics and traces cost: `python benchmarks/observability.py [ROUNDS] [STREAMS] [TOKENS_PER_SECOND]`.

Three servers with the synthetic engine run at the same time: one without metrics and traces, one whose metrics are read
every second, and one that also sends its traces to a collector. They get the same load in turns, in windows of a few
seconds within each round. The first table has the CPU time of the server's process per token, as a ratio to that of the
first server in the same round. Because the noise of the machine hides small differences there, a second table has the
CPU time that each part takes for one answer.
"""

import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
import urllib.request
from array import array
from concurrent import futures
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

from doherty.v1 import generation_service_pb2_grpc, request_pb2
from doherty_service.security import ANYBODY
from doherty_service.telemetry import LatencyRecorder, RequestRecord
from doherty_service.tracing._spans import Spans

WARM_UP_SECONDS = 1.0
WINDOW_SECONDS = 5.0
SCRAPE_SECONDS = 1.0
ANSWER_TOKENS = 170
SECONDS = 60
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """A running server."""

    name: str
    process: subprocess.Popen[str]
    target: str
    metrics: str

    def cpu_seconds(self) -> float:
        """Returns the CPU time of its process."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Counts the spans that it receives."""

    def __init__(self) -> None:
        """None has come."""
        self.spans = 0

    def Export(self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext) -> Any:  # noqa: N802, ARG002 - gRPC's signature
        """Receives a batch."""
        self.spans += sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)
        return trace_service_pb2.ExportTraceServiceResponse()


def start(name: str, stack: ExitStack, pace: str, *flags: str, **variables: str) -> Server:
    """Starts a server that ends with `stack`."""
    command = [sys.executable, "-m", "doherty_service", "--engine", "synthetic", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(
        [*command, "-o", f"tokens_per_second={pace}", *flags],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | variables,
    )
    stack.callback(process.wait, SECONDS)
    stack.callback(process.terminate)
    addresses: dict[str, str] = {}
    for line in process.stderr or ():
        event = json.loads(line)
        addresses[event["event"]] = event.get("address", "")
        if event["event"] == "ready":
            break
    # From here on, its log is discarded, as if a log collector read it.
    sink = futures.ThreadPoolExecutor(1)
    sink.submit(lambda: [None for _ in process.stderr or ()])
    return Server(name, process, addresses["listening"], addresses.get("metrics", ""))


async def scrape(address: str) -> None:
    """Reads the metrics repeatedly."""
    while address:
        reading = urllib.request.urlopen(f"http://{address}/metrics", timeout=SECONDS)  # noqa: ASYNC210 - our own server answers from a thread
        reading.read()
        await asyncio.sleep(SCRAPE_SECONDS)


class Load:
    """Streams that are restarted when they end."""

    def __init__(self, streams: int) -> None:
        """`streams` at a time."""
        self.tokens = 0
        self._streams = streams

    async def run(self, target: str) -> None:
        """Reads streams from `target` until it is cancelled."""
        async with grpc.aio.insecure_channel(target) as channel:
            stub: Any = generation_service_pb2_grpc.GenerationServiceStub(channel)
            await asyncio.gather(*(self._stream(stub) for _ in range(self._streams)))

    async def _stream(self, stub: Any) -> None:
        request = request_pb2.GenerateRequest(prompt="What atoms are in water?")
        request.stopping.max_output_tokens = ANSWER_TOKENS
        request.stopping.ignore_eos = True
        while True:
            async for reply in stub.StreamGenerate(request, timeout=SECONDS):
                self.tokens += reply.delta.token_count


async def window(server: Server, streams: int) -> float:
    """Returns CPU microseconds per token under load."""
    load = Load(streams)
    tasks = [asyncio.create_task(load.run(server.target)), asyncio.create_task(scrape(server.metrics))]
    try:
        await asyncio.sleep(WARM_UP_SECONDS)
        tokens, cpu = load.tokens, server.cpu_seconds()
        await asyncio.sleep(WINDOW_SECONDS)
        return (server.cpu_seconds() - cpu) / (load.tokens - tokens) * 1e6
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def of_the_parts(answers: int = 2000) -> dict[str, float]:
    """Returns the CPU microseconds per answer of each part."""
    recorder = LatencyRecorder(window=300)
    record = RequestRecord("/doherty.v1.GenerationService/StreamGenerate", "k", "r", ANYBODY, status="OK")
    record.mark_started(10, 0.0001, 0.0)
    for _ in range(ANSWER_TOKENS):
        record.mark_tokens(1)
    record.gaps = array("d", sorted(random.uniform(0.004, 0.006) for _ in record.gaps))  # noqa: S311 - test data
    record.mark_summary("stop")
    provider = TracerProvider(shutdown_on_exit=False)  # spans are created and filled, but not exported
    provider.add_span_processor(SpanProcessor())
    spans = Spans(provider.get_tracer("benchmark"))

    begun = time.process_time()
    for _ in range(answers):
        recorder.finish(record)
    measured = time.process_time()
    for _ in range(answers):
        spans.begin(record, ())
        spans.end(record)
    return {
        "counting and measuring": (measured - begun) / answers * 1e6,
        "a span": (time.process_time() - measured) / answers * 1e6,
    }


async def main(rounds: int, streams: int, pace: str) -> None:
    """Measures the servers, and prints the tables."""
    collector = Collector()
    receiving = grpc.server(futures.ThreadPoolExecutor(2))
    add: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add(collector, receiving)
    endpoint = f"http://127.0.0.1:{receiving.add_insecure_port('127.0.0.1:0')}"
    receiving.start()
    with ExitStack() as stack:
        stack.callback(receiving.stop, None)
        metrics = ("--metrics-listen", "127.0.0.1:0")
        servers = [
            start("without", stack, pace),
            start("metrics", stack, pace, *metrics),
            start("metrics and traces", stack, pace, *metrics, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint),
        ]
        samples: dict[str, list[float]] = {server.name: [] for server in servers}
        for number in range(rounds):
            for server in servers[number % 3 :] + servers[: number % 3]:
                samples[server.name].append(await window(server, streams))
    bases = samples["without"]
    print(f"{rounds} rounds, {streams} streams x {pace} tokens per second, {collector.spans} spans received")
    print("| server | CPU us per token | ratio: median | lowest | highest |\n|---|---|---|---|---|")
    for name, costs in samples.items():
        ratios = [cost / base for cost, base in zip(costs, bases, strict=True)]
        middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
        print(f"| {name} | {statistics.median(costs):.0f} | {middle:.3f} | {low:.3f} | {high:.3f} |")
    print(f"\n| part | CPU us per answer of {ANSWER_TOKENS} tokens | per token |\n|---|---|---|")
    for name, cost in (of_the_parts()).items():
        print(f"| {name} | {cost:.0f} | {cost / ANSWER_TOKENS:.2f} |")


if __name__ == "__main__":
    given = [*sys.argv[1:], *("7", "32", "200")[len(sys.argv) - 1 :]]
    asyncio.run(main(int(given[0]), int(given[1]), given[2]))
