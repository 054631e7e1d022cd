"""The server as a user runs it, in a process of its own, and what is asked of it."""

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
from prometheus_client.parser import text_string_to_metric_families

from doherty.v1 import (
    generation_service_pb2_grpc,
    latency_service_pb2,
    latency_service_pb2_grpc,
    model_pb2,
    request_pb2,
)
from doherty_engine import Drafting, EngineSetupError

_STOP_SECONDS = 60
_CALL_SECONDS = 600.0
_FREE_SECONDS = 30.0
_LOOK_SECONDS = 0.002


class Server:
    """A running server: its stubs, and what it says of itself."""

    def __init__(self, channel: grpc.Channel, metrics: str) -> None:
        """`metrics` is the address of its metrics."""
        self._metrics = metrics
        self.generation = generation_service_pb2_grpc.GenerationServiceStub(channel)
        self._latency = latency_service_pb2_grpc.LatencyServiceStub(channel)
        self.model: model_pb2.GetModelResponse = self.generation.GetModel(
            model_pb2.GetModelRequest(), timeout=_CALL_SECONDS
        )

    def ask(self, request: request_pb2.GenerateRequest) -> Any:
        """The whole answer."""
        return self.generation.Generate(request, timeout=_CALL_SECONDS)

    def stream(self, request: request_pb2.GenerateRequest) -> Any:
        """The call of a stream."""
        return self.generation.StreamGenerate(request, timeout=_CALL_SECONDS)

    def drafting(self) -> Drafting | None:
        """What drafts brought since it started, by its metrics; None where nothing is drafted."""
        with urllib.request.urlopen(f"http://{self._metrics}/metrics", timeout=_CALL_SECONDS) as reply:
            families = list(text_string_to_metric_families(reply.read().decode()))
        told = {
            (sample.name, sample.labels.get("position", "")): int(sample.value)
            for family in families
            for sample in family.samples
            if "draft" in sample.name
        }
        drafts = told.get(("doherty_drafts_total", ""))
        if drafts is None:
            return None
        name = "doherty_accepted_draft_tokens_total"
        positions = sorted(int(position) for found, position in told if found == name)
        accepted = tuple(told[name, str(position)] for position in positions)
        return Drafting(drafts, told["doherty_draft_tokens_total", ""], accepted)

    def seconds_until_free(self) -> float | None:
        """Waits until nothing runs any more; None where that does not come about."""
        begun = time.monotonic()
        waited = 0.0
        while waited < _FREE_SECONDS:
            now = self._latency.GetLatency(latency_service_pb2.GetLatencyRequest(), timeout=_CALL_SECONDS)
            waited = time.monotonic() - begun
            if not now.running:
                return waited
            time.sleep(_LOOK_SECONDS)
        return None


@contextmanager
def serving(engine: str, options: Mapping[str, str], report: Callable[[str], None]) -> Iterator[Server]:
    """Runs `doherty serve`, which builds what is missing, until the block is left.

    Raises:
        EngineSetupError: it cannot start; what it says goes on.
    """
    flags = [flag for key, value in options.items() for flag in ("--engine-option", f"{key}={value}")]
    listen = ("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0")
    command = [sys.executable, "-m", "doherty_service", "--engine", engine, *listen, *flags]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DOHERTY_")}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=kept) as process:  # noqa: S603 - ourselves
        try:
            address, metrics = _wait(process, report)
            with grpc.insecure_channel(address) as channel:
                yield Server(channel, metrics)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:  # an engine's worker may hang
                process.kill()


def _wait(process: "subprocess.Popen[str]", report: Callable[[str], None]) -> tuple[str, str]:
    """Reads the log until the server is ready, and lets a thread read on; returns its address, and its metrics'."""
    if process.stderr is None:
        raise AssertionError("the log is not read")
    said = metrics = ""
    for text in process.stderr:
        line = _read(text)
        if line.get("event") == "loading":
            report(str(line.get("doing")))
        elif line.get("event") == "metrics":
            metrics = str(line["address"])
        elif line.get("event") == "ready":
            threading.Thread(target=_pass_on, args=(process.stderr,), daemon=True).start()
            return str(line["address"]), metrics
        elif not line:
            sys.stderr.write(text)
            said = text.strip() or said
    raise EngineSetupError(said or "The server ended before it was ready.")


def _pass_on(log: Any) -> None:
    """What is no line of our log is the engine's, and a person may want to see it."""
    for text in log:
        if not _read(text):
            sys.stderr.write(text)


def _read(text: str) -> dict[str, object]:
    try:
        line = json.loads(text)
    except ValueError:
        return {}
    return line if isinstance(line, dict) else {}
