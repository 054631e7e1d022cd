"""Where calls are told to OpenTelemetry, in a program that uses it."""

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from doherty.v1.answer_pb2 import Start, Summary
    from doherty.v1.request_pb2 import GenerateRequest


class Trace:
    """What is told of one call, over all its attempts; this one tells nobody.

    It is a context manager, which tells of the error that is raised in it.
    """

    metadata: tuple[tuple[str, str], ...] = ()
    """Makes the server's part of the trace known as a part of it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self.fail(error)

    def attempt(self, target: str, number: int) -> None:
        """Notes where the next attempt goes."""

    def begin(self) -> None:
        """Notes that the first of the answer has come."""

    def complete(self, start: "Start", summary: "Summary", *, resumed: int = 0) -> None:
        """Notes that the answer is complete."""

    def fail(self, error: BaseException) -> None:
        """Notes that the call failed, or that its caller ended it."""


_NO_TRACE = Trace()


def start_trace(request: "GenerateRequest", *, stream: bool) -> Trace:
    """Begins to tell of a call, whose answer may come in a stream."""
    # A program that uses OpenTelemetry has loaded it by now. Loading it here would cost all others.
    if "opentelemetry.trace" not in sys.modules:
        return _NO_TRACE
    from doherty._core._span import SpanTrace  # noqa: PLC0415 - optional

    return SpanTrace(request, stream=stream)
