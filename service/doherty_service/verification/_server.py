"""The server as a user runs it, in a process of its own, and what is asked of it."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc

from doherty.v1 import (
    generation_service_pb2_grpc,
    latency_service_pb2,
    latency_service_pb2_grpc,
    model_pb2,
    request_pb2,
)
from doherty_engine import EngineSetupError
from doherty_service._environment import PREFIX

_STOP_SECONDS = 60
_CALL_SECONDS = 600.0
_FREE_SECONDS = 30.0
_LOOK_SECONDS = 0.002


class Server:
    """A running server: its stubs, and what it says of itself."""

    def __init__(self, channel: grpc.Channel) -> None:
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
def serving(options: Mapping[str, str], report: Callable[[str], None]) -> Iterator[Server]:
    """Runs `doherty serve --engine trtllm`, which builds what is missing, until the block is left.

    Raises:
        EngineSetupError: it cannot start; what it says goes on.
    """
    flags = [flag for key, value in options.items() for flag in ("--engine-option", f"{key}={value}")]
    command = [sys.executable, "-m", "doherty_service", "--engine", "trtllm", "--listen", "127.0.0.1:0", *flags]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=kept) as process:  # noqa: S603 - ourselves
        try:
            address = _wait(process, report)
            with grpc.insecure_channel(address) as channel:
                yield Server(channel)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:  # TensorRT-LLM's worker may hang
                process.kill()


def _wait(process: "subprocess.Popen[str]", report: Callable[[str], None]) -> str:
    """Reads the log until the server is ready, and lets a thread read on; returns the address."""
    if process.stderr is None:
        raise AssertionError("the log is not read")
    said = ""
    for text in process.stderr:
        line = _read(text)
        if line.get("event") == "loading":
            report(str(line.get("doing")))
        elif line.get("event") == "ready":
            threading.Thread(target=_pass_on, args=(process.stderr,), daemon=True).start()
            return str(line["address"])
        elif not line:
            sys.stderr.write(text)
            said = text.strip() or said
    raise EngineSetupError(said or "The server ended before it was ready.")


def _pass_on(log: Any) -> None:
    """What is no line of our log is TensorRT-LLM's, and a person may want to see it."""
    for text in log:
        if not _read(text):
            sys.stderr.write(text)


def _read(text: str) -> dict[str, object]:
    try:
        line = json.loads(text)
    except ValueError:
        return {}
    return line if isinstance(line, dict) else {}
