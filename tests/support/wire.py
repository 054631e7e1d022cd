"""The contract as a caller without the SDK sees it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import grpc
from google.protobuf import json_format
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from doherty.v1 import generation_service_pb2 as wire
from doherty.v1 import (
    generation_service_pb2_grpc,
    latency_service_pb2,
    latency_service_pb2_grpc,
    model_pb2,
    request_pb2,
)

SECONDS = 30
"""The deadline of every call."""


@dataclass(frozen=True)
class Failure:
    """A status other than OK with its details."""

    code: grpc.StatusCode
    message: str
    reason: str
    domain: str
    request_id: str
    fields: list[str]
    retry_seconds: float | None


class Caller:
    """Calls a server through the generated stubs, with requests as JSON-like dicts."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self.stub = generation_service_pb2_grpc.GenerationServiceStub(channel)
        self.latency = latency_service_pb2_grpc.LatencyServiceStub(channel)
        self.model = self.stub.GetModel(model_pb2.GetModelRequest(), timeout=SECONDS, wait_for_ready=True)

    def generate(self, **fields: Any) -> wire.GenerateResponse:
        """The whole answer."""
        return self.stub.Generate(request(**fields), timeout=SECONDS)

    def stream(self, **fields: Any) -> list[wire.StreamGenerateResponse]:
        """All messages of a stream."""
        return list(self.stub.StreamGenerate(request(**fields), timeout=SECONDS))

    def failure(self, **fields: Any) -> Failure:
        """How a request fails, which it must, in the same way in both calls."""
        unary = failure_of(lambda: self.generate(**fields))
        streamed = failure_of(lambda: self.stream(**fields))
        assert (unary.code, unary.reason, unary.fields) == (streamed.code, streamed.reason, streamed.fields)
        return unary

    def wait_until(
        self, holds: Callable[[latency_service_pb2.GetLatencyResponse], bool]
    ) -> latency_service_pb2.GetLatencyResponse:
        """Asks GetLatency until something holds, and returns what it then said."""
        ends_at = time.monotonic() + SECONDS
        while not holds(now := self.latency.GetLatency(latency_service_pb2.GetLatencyRequest(), timeout=SECONDS)):
            assert time.monotonic() < ends_at, f"it never came to be: {now}"
        return now


def request(**fields: Any) -> request_pb2.GenerateRequest:
    """A request from its JSON form."""
    return json_format.ParseDict(fields, request_pb2.GenerateRequest())


def failure_of(call: Any) -> Failure:
    """Runs a call that must fail, and reads its status."""
    try:
        call()
    except grpc.RpcError as error:
        return read_failure(error)
    raise AssertionError("the call did not fail")


def read_failure(error: grpc.RpcError | grpc.Call) -> Failure:
    """The status of an error, with every detail that the contract promises."""
    call = cast("grpc.Call", error)
    status = rpc_status.from_call(call)
    assert status is not None, f"{call.code()} without details: {call.details()}"
    found: dict[str, Any] = {}
    for detail in status.details:
        for kind in ("ErrorInfo", "RequestInfo", "BadRequest", "RetryInfo"):
            message = getattr(error_details_pb2, kind)()
            if detail.Unpack(message):
                found[kind] = message
    retry = found.get("RetryInfo")
    return Failure(
        code=call.code(),
        message=call.details() or "",
        reason=found["ErrorInfo"].reason,
        domain=found["ErrorInfo"].domain,
        request_id=found["RequestInfo"].request_id,
        fields=[violation.field for violation in found["BadRequest"].field_violations] if "BadRequest" in found else [],
        retry_seconds=None if retry is None else retry.retry_delay.ToNanoseconds() / 1e9,
    )


@contextmanager
def connect(target: str, roots: bytes | None = None) -> Iterator[Caller]:
    """A caller with a channel of its own, which is encrypted if there are authorities to trust."""
    encrypted = roots and grpc.secure_channel(target, grpc.ssl_channel_credentials(roots))
    with encrypted or grpc.insecure_channel(target) as channel:
        yield Caller(channel)
