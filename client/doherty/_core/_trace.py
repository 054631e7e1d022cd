"""Reports calls to OpenTelemetry in programs that use it."""

from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

    from doherty._core._status import Status
    from doherty.v1.answer_pb2 import Start, Summary


class Trace:
    """The trace of one call over all its attempts. This base class reports nothing.

    It is a context manager that reports an error raised within.
    """

    metadata: tuple[tuple[str, str], ...] = ()
    """Makes the server's spans part of this trace."""

    needs_own_rpc = False
    """Whether `metadata` has more than a request of a MultiplexGenerate can carry, such as baggage."""

    ids: "Mapping[str, str]" = MappingProxyType({})
    """The fields of log lines that identify the span: `trace_id` and `span_id`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self.fail(error)

    def attempt(self, target: str, number: int) -> None:
        """Reports the server of the next attempt."""

    def attempt_failed(self, target: str, status: "Status") -> None:
        """Reports the error of an attempt that is not the last one."""

    def begin(self) -> None:
        """Reports that the first message was received."""

    def complete(self, start: "Start", summary: "Summary", *, resumed: int = 0) -> None:
        """Reports that the answer is complete."""

    def fail(self, error: BaseException) -> None:
        """Reports that the call failed or was ended by its caller."""


NO_TRACE: Final = Trace()
"""The trace of calls in programs that do not use OpenTelemetry."""
