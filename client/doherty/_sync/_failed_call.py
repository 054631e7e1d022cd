"""The error of a call that gRPC has served in its thread."""

from typing import Any

import grpc


class FailedCall(grpc.RpcError):
    """What gRPC reports of a failed call.

    The exception that gRPC raises is the call itself. It takes a lock when it is dropped, and its traceback refers to
    itself and to its request.
    """

    def __init__(self, call: Any) -> None:
        super().__init__()  # the arguments of an exception are kept in `args`, and would keep the call alive
        self._code, self._details = call.code(), call.details()
        self._initial, self._trailing = call.initial_metadata(), call.trailing_metadata()

    def __str__(self) -> str:
        return f"{self._code.name}: {self._details}"

    def code(self) -> grpc.StatusCode:
        """The status code."""
        code: grpc.StatusCode = self._code
        return code

    def details(self) -> str | None:
        """The message of the status."""
        details: str | None = self._details
        return details

    def initial_metadata(self) -> Any:
        """The metadata before the first message."""
        return self._initial

    def trailing_metadata(self) -> Any:
        """The metadata that came with the status."""
        return self._trailing


def result_of(call: Any) -> Any:
    """Waits for the end of a call, and returns its reply, or a FailedCall."""
    try:
        return call.result()
    except grpc.RpcError as error:
        error.__traceback__ = None  # its frames refer to the call, which is the error
        return FailedCall(call)
