"""The exceptions for statuses: their class, reason and message, without a server."""

import grpc
import grpc.aio
import pytest
from google.rpc.status_pb2 import Status

from doherty import (
    CancelledByServerError,
    InternalError,
    InvalidRequestError,
    OverloadedError,
    RpcError,
    UnsupportedError,
)
from doherty._core._explain import explain
from doherty._core._status import Status as StatusSaid
from doherty._core._status import read_status


def _failed(code: grpc.StatusCode, details: bytes | None = None) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata()
    if details is not None:
        trailing.add("grpc-status-details-bin", details)
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, "it said so")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.CANCELLED, CancelledByServerError),
        (grpc.StatusCode.UNIMPLEMENTED, UnsupportedError),
        (grpc.StatusCode.INTERNAL, InternalError),
        (grpc.StatusCode.UNKNOWN, InternalError),
        (grpc.StatusCode.DATA_LOSS, InternalError),
    ],
)
def test_a_status_without_details_is_mapped_by_its_code(code: grpc.StatusCode, kind: type[RpcError]) -> None:
    error = explain(read_status(_failed(code)), target="there")
    assert (type(error), error.code) == (kind, code)
    assert "it said so" in error.message


@pytest.mark.parametrize(
    ("code", "message", "kind", "advice"),
    [
        (grpc.StatusCode.INTERNAL, "Error parsing 'te' metadata", InternalError, "proxy"),
        (grpc.StatusCode.UNIMPLEMENTED, "Compression algorithm 'gzip' is disabled.", UnsupportedError, "compresses"),
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "received metadata size exceeds hard limit",
            InvalidRequestError,
            "metadata is",
        ),
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "SERVER: Received message larger than max",
            InvalidRequestError,
            "max_message_bytes",
        ),
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "CLIENT: Received message larger than max",
            InvalidRequestError,
            "stream it",
        ),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Memory quota exhausted", OverloadedError, ""),
    ],
)
def test_messages_of_grpc_itself_are_explained(
    code: grpc.StatusCode, message: str, kind: type[RpcError], advice: str
) -> None:
    status = StatusSaid(code, message)
    error = explain(status, target="there")
    assert (type(error), error.reason, error.code) == (kind, None, code)
    assert error.message.startswith(message)
    assert advice in error.message
    assert not status.may_pass(begun=False)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("sampling.temperature: must be from 0 to 2", "temperature: must be from 0 to 2"),
        ("stopping.stop_texts: too many; output.token_ids: no", "stop: too many; GenerateOptions.token_ids: no"),
        (
            "constraint.json_schema: oneOf; constraint.choices.choices: none",
            "schema: oneOf; GenerateOptions.choices: none",
        ),
        ("token_ids: no; continue_from.text: no", "TokenIds: no; GenerateOptions.continue_from: no"),
        ("messages[0].role: must be one of the token_ids", "messages[0].role: must be one of the token_ids"),
    ],
)
def test_fields_have_the_names_of_the_sdk(message: str, expected: str) -> None:
    status = StatusSaid(grpc.StatusCode.INVALID_ARGUMENT, message, answered=True)
    assert explain(status, target="there").message == expected


@pytest.mark.parametrize("details", [b"\xff\xff", Status(code=5, message="other").SerializeToString()])
def test_invalid_details_are_ignored(details: bytes) -> None:
    error = explain(read_status(_failed(grpc.StatusCode.INTERNAL, details)), target="there")
    assert (type(error), error.reason) == (InternalError, None)
