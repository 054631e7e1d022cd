"""Calls the contract's methods without the SDK."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import grpc
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from doherty.v1 import generation_service_pb2 as wire
from doherty.v1 import (
    generation_service_pb2_grpc,
    latency_service_pb2,
    latency_service_pb2_grpc,
    model_pb2,
    request_pb2,
)

SECONDS = 120
"""The timeout of every call, in seconds. It is this long because admission refuses a call whose deadline it does not
expect to meet."""


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
    """Calls a server through the generated stubs; requests are JSON-like dicts."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self.stub = generation_service_pb2_grpc.GenerationServiceStub(channel)
        self.latency = latency_service_pb2_grpc.LatencyServiceStub(channel)
        self.model = self.stub.GetModel(model_pb2.GetModelRequest(), timeout=SECONDS, wait_for_ready=True)

    def generate(self, **fields: Any) -> wire.GenerateResponse:
        """Returns the answer of a unary call."""
        return self.stub.Generate(request(**fields), timeout=SECONDS)

    def stream(self, **fields: Any) -> list[wire.StreamGenerateResponse]:
        """Returns all messages of a stream."""
        return list(self.stub.StreamGenerate(request(**fields), timeout=SECONDS))

    def failure(self, **fields: Any) -> Failure:
        """Makes both calls, which must fail in the same way, and returns the failure."""
        unary = failure_of(lambda: self.generate(**fields))
        streamed = failure_of(lambda: self.stream(**fields))
        assert (unary.code, unary.reason, unary.fields) == (streamed.code, streamed.reason, streamed.fields)
        return unary

    def wait_until(
        self, holds: Callable[[latency_service_pb2.GetLatencyResponse], bool]
    ) -> latency_service_pb2.GetLatencyResponse:
        """Calls GetLatency until a condition is true, and returns the last reply."""
        ends_at = time.monotonic() + SECONDS
        while not holds(now := self.latency.GetLatency(latency_service_pb2.GetLatencyRequest(), timeout=SECONDS)):
            assert time.monotonic() < ends_at, f"the condition did not become true within {SECONDS} s: {now}"
        return now


def request(**fields: Any) -> request_pb2.GenerateRequest:
    """Returns a request from its JSON form."""
    return json_format.ParseDict(fields, request_pb2.GenerateRequest())


def failure_of(call: Any) -> Failure:
    """Makes a call that must fail, and returns the failure."""
    try:
        call()
    except grpc.RpcError as error:
        return read_failure(error)
    raise AssertionError("the call did not fail")


def read_failure(error: grpc.RpcError | grpc.Call) -> Failure:
    """Returns the status of an error, and checks that it has all details that the contract promises."""
    call = cast("grpc.Call", error)
    status = rpc_status.from_call(call)
    assert status is not None, f"{call.code()} without details: {call.details()}"
    return failure_from(status)


def failure_from(status: status_pb2.Status) -> Failure:
    """Returns the same for a status that was received as a message."""
    details: dict[str, Any] = {}
    for detail in status.details:
        for kind in ("ErrorInfo", "RequestInfo", "BadRequest", "RetryInfo"):
            message = getattr(error_details_pb2, kind)()
            if detail.Unpack(message):
                details[kind] = message
    retry = details.get("RetryInfo")
    return Failure(
        code=next(code for code in grpc.StatusCode if code.value[0] == status.code),
        message=status.message,
        reason=details["ErrorInfo"].reason,
        domain=details["ErrorInfo"].domain,
        request_id=details["RequestInfo"].request_id,
        fields=[violation.field for violation in details["BadRequest"].field_violations]
        if "BadRequest" in details
        else [],
        retry_seconds=None if retry is None else retry.retry_delay.ToNanoseconds() / 1e9,
    )


@contextmanager
def connect(target: str, roots: bytes | None = None) -> Iterator[Caller]:
    """Opens a caller with a channel of its own, with TLS if `roots` are given."""
    encrypted = roots and grpc.secure_channel(target, grpc.ssl_channel_credentials(roots))
    with encrypted or grpc.insecure_channel(target) as channel:
        yield Caller(channel)
