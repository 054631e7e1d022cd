"""Counts what one request runs through in the server: `python benchmarks/path.py [--checkout FOLDER] [--list]`.

For one request of each kind, it counts the work of the event loop's thread after warm-up requests, without API keys and
traces, with log level `info`. Targets for StreamGenerate: at most 11 files of service/, 7 Python calls per token in
service/, and 5 objects in the middle of the answer. `--checkout` measures another checkout, which needs its own
`.venv`. `--list` also prints the files, functions and objects.

The measured process runs `doherty serve` in its main thread and the client in another thread, which sets
`sys.setprofile` in the thread of the server's event loop. Python profiles each thread separately, so the client is not
counted.
"""

import argparse
import asyncio
import gc
import json
import os
import queue
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from doherty.v1 import generation_service_pb2 as wire
from doherty.v1 import request_pb2
from doherty.v1.generation_service_pb2_grpc import GenerationServiceStub
from doherty_service.command import serve

SHORT, LONG = 2, 12
"""The numbers of tokens of two answers, whose difference shows the cost of a token."""

ENDLESS = 2_000
"""The number of tokens of the answer that still runs when the objects are counted."""

ROUNDS = 9
"""The number of measurements. The one with the median number of calls is used, because a busy machine merges
outputs."""

WARM_UPS = 5
SETTLE_SECONDS = 0.2
"""The time after the end of an answer during which calls still count, in seconds. A step of the engine takes 5 ms."""

IDLE_SECONDS = 2.0
"""For so many seconds the idle server is watched, to exclude its background work."""

PACKAGES = ("doherty_service", "doherty_engine")
SERVICE = f"{os.sep}doherty_service{os.sep}"
ENGINES_OWN = ("EngineRequest", "_Handle")
"""The engine's objects of each request. The parts of an EngineRequest are not counted separately."""

Result = TypeVar("Result")
Calls = Counter[CodeType]
Messages = Generator[object, None, None]
Ask = Callable[[int], Messages]
"""Sends a request for a number of tokens, and yields its messages. Closing it cancels the request."""


class Probe:
    """Counts calls and objects of the server in this process."""

    def __init__(self) -> None:
        self._loop = running_loop()
        self._background: set[CodeType] = set()
        self._background = set(self.calls(lambda: time.sleep(IDLE_SECONDS)))

    def calls(self, work: Callable[[], object]) -> Calls:
        """Returns the calls of Python functions in the event loop's thread while `work` runs in this thread."""
        calls: Calls = Counter()

        def count(frame: FrameType, event: str, _: object) -> None:
            if event == "call" and any(package in frame.f_code.co_filename for package in PACKAGES):
                calls[frame.f_code] += 1

        self._on_loop(lambda: sys.setprofile(count))
        work()
        self._on_loop(lambda: sys.setprofile(None))
        return Counter({code: number for code, number in calls.items() if code not in self._background})

    def objects(self) -> Counter[str]:
        """Returns the living objects of requests, by the name of their class."""
        return self._on_loop(instances)

    def _on_loop(self, function: Callable[[], Result]) -> Result:
        """Runs a function in the event loop's thread."""
        done: Future[Result] = Future()
        self._loop.call_soon_threadsafe(lambda: done.set_result(function()))
        return done.result(timeout=30)


def running_loop() -> asyncio.AbstractEventLoop:
    """Returns the server's event loop, once it runs."""
    gc.unfreeze()  # the server has excluded the objects of its start from garbage collection
    return next(
        thing for thing in gc.get_objects() if isinstance(thing, asyncio.AbstractEventLoop) and thing.is_running()
    )


def instances() -> Counter[str]:
    """Returns the instances of the service's classes and of ENGINES_OWN that the garbage collector knows."""
    gc.collect()
    kinds = (type(thing) for thing in gc.get_objects())
    ours = (kind for kind in kinds if str(kind.__module__).startswith(PACKAGES))
    return Counter(
        kind.__qualname__
        for kind in ours
        if kind.__module__.startswith("doherty_service") or kind.__qualname__ in ENGINES_OWN
    )


def measure(probe: Probe, ask: Ask) -> dict[str, Any]:
    """Measures one kind of request."""

    def answer(tokens: int) -> None:
        for _ in ask(tokens):
            pass
        time.sleep(SETTLE_SECONDS)

    for _ in range(WARM_UPS):
        answer(LONG)
    begin_endless(ask).close()  # the server caches settings that it has seen
    time.sleep(SETTLE_SECONDS)

    def median(tokens: int) -> Calls:
        rounds = [probe.calls(lambda: answer(tokens)) for _ in range(ROUNDS)]
        return sorted(rounds, key=Counter.total)[ROUNDS // 2]

    short, long = median(SHORT), median(LONG)
    before = probe.objects()
    endless = begin_endless(ask)
    alive = probe.objects() - before
    endless.close()
    service = [code for code in long if SERVICE in code.co_filename]
    growth = {code: (long[code] - short[code]) / (LONG - SHORT) for code in long if long[code] > short[code]}
    return {
        "files": sorted({name(code).partition(":")[0] for code in service}),
        "functions": sorted(map(name, service)),
        "calls": sum(long[code] for code in service),
        "per token": {name(code): calls for code, calls in growth.items()},
        "objects": dict(alive),
    }


def begin_endless(ask: Ask) -> Messages:
    """An answer of which some messages were received."""
    endless = ask(ENDLESS)
    for _ in range(LONG):
        next(endless)
    return endless


def name(code: CodeType) -> str:
    """Returns a function with its file, for example "rpc/_interceptor.py:_begin"."""
    file = Path(code.co_filename)
    package = next(parent for parent in file.parents if parent.name in PACKAGES)
    inside = str(file.relative_to(package))
    return f"{inside if package.name == 'doherty_service' else f'{package.name}/{inside}'}:{code.co_qualname}"


def ask_each(stub: GenerationServiceStub) -> Iterator[tuple[str, Ask]]:
    """Returns the functions that send each kind of request, by name."""

    def request(tokens: int) -> request_pb2.GenerateRequest:
        return request_pb2.GenerateRequest(
            prompt="Why is the sky blue?",
            stopping=request_pb2.Stopping(max_output_tokens=tokens, ignore_eos=True),
        )

    def stream(tokens: int) -> Messages:
        call = stub.StreamGenerate(request(tokens))
        try:
            yield from call
        finally:
            call.cancel()

    def whole(tokens: int) -> Messages:
        call = stub.Generate.future(request(tokens))
        try:
            if tokens == ENDLESS:
                time.sleep(SETTLE_SECONDS)
                yield from range(LONG)
            yield call.result()
        finally:
            call.cancel()

    starts: queue.Queue[wire.MultiplexGenerateRequest] = queue.Queue()
    responses = stub.MultiplexGenerate(iter(starts.get, None))
    ids = iter(range(1, 1_000))

    def lane(tokens: int) -> Messages:
        start = wire.MultiplexStart(id=next(ids), request=request(tokens))
        starts.put(wire.MultiplexGenerateRequest(starts=[start]))
        is_over = False
        try:
            while not is_over:
                message = next(responses)
                is_over = ends(message)
                yield message
        finally:
            starts.put(wire.MultiplexGenerateRequest(cancels=[start.id]))
            while not is_over:
                is_over = ends(next(responses))

    yield "StreamGenerate", stream
    yield "Generate", whole
    yield "MultiplexGenerate, one request", lane


def ends(message: wire.MultiplexGenerateResponse) -> bool:
    """Whether a message contains the last part of a request."""
    return any(part.HasField("status") or part.response.HasField("summary") for part in message.parts)


def serve_and_measure(results: Path) -> None:
    """Runs the server in this thread, and the client in another thread, which ends the process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"

    def run_client() -> None:
        try:
            with connect(address) as channel:
                probe = Probe()
                kinds = ask_each(GenerationServiceStub(channel))
                results.write_text(json.dumps({kind: measure(probe, ask) for kind, ask in kinds}), encoding="utf-8")
        except BaseException:  # noqa: BLE001 - whatever it is, the process ends
            traceback.print_exc()
        os._exit(0)

    threading.Thread(target=run_client, name="client").start()
    serve.main(["--engine", "synthetic", "--listen", address, "--canary-interval", "0", "--log-level", "info"])


def connect(address: str) -> grpc.Channel:
    """Returns a channel to the server, once it is healthy."""
    channel = grpc.insecure_channel(address)
    stub: Any = health_pb2_grpc.HealthStub(channel)  # its types know no methods
    watch = stub.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True)
    for status in watch:
        if status.status == health_pb2.HealthCheckResponse.SERVING:
            watch.cancel()
            return channel
    raise AssertionError("the watch of a server's health has no end")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkout", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        serve_and_measure(options.measure)
        return
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        python = options.checkout / ".venv" / "bin" / "python"
        command = [python, Path(__file__).resolve(), "--measure", results]
        log = subprocess.run(command, check=True, cwd=options.checkout, stderr=subprocess.PIPE, timeout=300).stderr
        if not results.exists():
            sys.exit(log.decode()[-4000:])
        measured = json.loads(results.read_text(encoding="utf-8"))
    show(measured, with_lists=options.list)


def show(measured: dict[str, dict[str, Any]], *, with_lists: bool) -> None:
    """Prints the table, and the lists if requested."""
    print("| request | files | functions | calls, 12 tokens | calls per token | objects |\n|---|---|---|---|---|---|")
    for kind, figures in measured.items():
        files, functions, objects = len(figures["files"]), len(figures["functions"]), sum(figures["objects"].values())
        per_token = sum(
            calls for where, calls in figures["per token"].items() if not where.startswith("doherty_engine")
        )
        print(f"| {kind} | {files} | {functions} | {figures['calls']} | {per_token:.1f} | {objects} |")
    for kind, figures in measured.items() if with_lists else ():
        for what, entries in figures.items():
            if what != "calls":
                lines = entries if isinstance(entries, list) else [f"{n:g} {entry}" for entry, n in entries.items()]
                print(f"\n{kind}: {what}\n  " + "\n  ".join(lines))


if __name__ == "__main__":
    main()
