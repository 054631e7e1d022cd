"""Reports calls to OpenTelemetry in programs that use it."""

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from doherty.v1.answer_pb2 import Start, Summary
    from doherty.v1.request_pb2 import GenerateRequest


class Trace:
    """The trace of one call over all its attempts. This base class reports nothing.

    It is a context manager that reports an error raised within.
    """

    metadata: tuple[tuple[str, str], ...] = ()
    """Makes the server's spans part of this trace."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self.fail(error)

    def attempt(self, target: str, number: int) -> None:
        """Reports where the next attempt goes."""

    def begin(self) -> None:
        """Reports that the first message was received."""

    def complete(self, start: "Start", summary: "Summary", *, resumed: int = 0) -> None:
        """Reports that the answer is complete."""

    def fail(self, error: BaseException) -> None:
        """Reports that the call failed or was ended by its caller."""


_NO_TRACE = Trace()


def start_trace(request: "GenerateRequest", *, stream: bool) -> Trace:
    """Begins the trace of a call."""
    # A program that uses OpenTelemetry has loaded it by now. Loading it here would cost all other programs time.
    if "opentelemetry.trace" not in sys.modules:
        return _NO_TRACE
    from doherty._core._span import SpanTrace  # noqa: PLC0415 - optional

    return SpanTrace(request, stream=stream)
