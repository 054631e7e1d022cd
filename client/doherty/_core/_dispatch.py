"""The common state of the calls of a client: its targets, its key and its retry budget."""

import os
import sys
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Final

import grpc

from doherty._core._actions import Actions, AskForTls, Rpc, Send
from doherty._core._balance import Target, Targets
from doherty._core._errors import ClientClosedError, DohertyError, ForkError
from doherty._core._metadata import Pairs
from doherty._core._obstacle import Obstacle, TlsUse
from doherty._core._retry import Budget, CallAttempts, RetryPolicy, limit_retries
from doherty._core._settings import CallOptions, Settings, choose_timeout, whose_timeout
from doherty._core._trace import NO_TRACE, Trace

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from doherty._core._status import Status
    from doherty.v1.request_pb2 import GenerateRequest

_LONGEST_LOOK: Final = 1.0
"""How many seconds to wait until a server shows whether it expects TLS."""


class Shared:
    """The common state of clients on the same connections."""

    def __init__(self, settings: Settings) -> None:
        self.targets = Targets(settings.targets)
        self.budget = Budget((settings.retry or RetryPolicy()).budget)
        self.disconnected = False
        """Whether the connections were closed. Then no call continues."""
        self.pid: int | None = None
        """The process of the first call; None before that."""


class Dispatch:
    """Chooses a target for every attempt, and decides what happens after a failed one. Thread-safe."""

    def __init__(self, settings: Settings, shared: Shared | None = None) -> None:
        """`shared` is the state of the client that owns the connections, if this client only uses them."""
        self.settings = settings
        self.shared = shared or Shared(settings)
        self.targets = self.shared.targets
        self.closed = False
        """Whether the client was closed. Then it starts no more calls."""
        self._metadata = settings.fixed_metadata()
        """The metadata of every attempt; None if a callable returns the key."""
        size = (settings.retry or RetryPolicy()).budget
        self._budget = self.shared.budget if self.shared.budget.size == size else Budget(size)

    def begin_call(self, options: CallOptions, *, resume: bool = False) -> CallAttempts:
        """Starts a call.

        Args:
            options: The timeout of all attempts together, the retries and the metadata.
            resume: Whether an answer that is cut off can be resumed.
        """
        self.check_usable()
        attempts = CallAttempts(
            limit_retries(self.settings.retry, options.max_retries),
            self._budget,
            choose_timeout(options.timeout, self.settings.timeout),
            resume=resume and self.settings.resume,
            whose_timeout=whose_timeout(options.timeout),
        )
        attempts.own_metadata = options.metadata
        return attempts

    def begin_only_attempt(self, seconds: float | None, whose_timeout: str) -> CallAttempts:
        """Starts an attempt with this timeout and without retries."""
        self.check_usable()
        return CallAttempts(None, self._budget, seconds, resume=False, whose_timeout=whose_timeout)

    def check_usable(self) -> None:
        """Checks that calls can be made.

        Raises:
            ClientClosedError: The client is closed.
            ForkError: This is another process.
        """
        if self.closed or self.shared.disconnected:
            raise ClientClosedError("The client is closed: make a new one.")
        if self.shared.pid is None:
            self.shared.pid = os.getpid()
        self.check_process()

    def check_process(self) -> None:
        """Checks that this process made the client's first call.

        Raises:
            ForkError: Another process did, and this one was forked from it.
        """
        if not self.is_of_this_process():
            raise ForkError(
                "The client was used before the process was forked, and a fork has no connections: make a client in "
                "each process."
            )

    def is_of_this_process(self) -> bool:
        """Whether this process made the client's first call. A forked process must not touch gRPC's objects."""
        return self.shared.pid in (None, os.getpid())

    def begin_attempt(self, attempts: CallAttempts) -> Actions[Target]:
        """Chooses the target of a call's next attempt. The attempt counts as running on it until `targets.end`."""
        if self.shared.disconnected:
            raise ClientClosedError("The client was closed.")
        attempts.shared_metadata = (
            self._metadata if self._metadata is not None else (yield from self.fetch_metadata(attempts))
        )
        attempts.begin_attempt()
        target = self.targets.begin()
        if not target.settled and target.in_flight > 1:
            from doherty._core._settling import settle  # noqa: PLC0415 - only bursts to several servers need it

            try:
                yield from settle(target, attempts)
            except BaseException:  # the call was cancelled
                self.targets.end(target)
                raise
        attempts.trace.attempt(target.name, attempts.count)
        return target

    def fetch_metadata(self, attempts: CallAttempts) -> Actions[Pairs]:
        """Gets the key for a call's next attempt, and returns the metadata of the client's calls.

        Raises the exception of the caller's callable, if it raised one.
        """
        key = yield from self.settings.key.pairs(attempts.remaining())
        return Pairs((*key, *self.settings.metadata))

    def send(self, rpc: Rpc, target: Target, request: "Message", attempts: CallAttempts) -> Send:
        """Returns the action that sends a request with the remaining time of the call as its timeout."""
        label = getattr(request, "request_id", None)
        attempts.log.begin(rpc, target.name, max(attempts.count, 1), label, attempts.trace)
        return Send(
            rpc,
            target,
            request,
            attempts.remaining(),
            attempts.metadata,
            attempts.shared_metadata,
            bool(attempts.own_metadata) or attempts.trace.needs_own_rpc,
            attempts.keep_reply_metadata if rpc == "Generate" else None,
        )

    def after(
        self, error: BaseException | None, target: Target, attempts: CallAttempts, *, begun: bool = False
    ) -> Actions[float | DohertyError]:
        """Decides what happens after a failed attempt.

        Args:
            error: The exception that gRPC raised; None for a stream that ended without a summary.
            target: The target of the attempt.
            attempts: The attempts of the call.
            begun: Whether a part of the answer was received, by this attempt or an earlier one.

        Returns:
            The seconds to wait before the next attempt, or the exception to raise if there is no next one.
        """
        if self.shared.disconnected:
            # Closing a channel cancels its calls, and a call on a closed channel raises ValueError or UsageError.
            return ClientClosedError("The client was closed.")
        if error is not None and not isinstance(error, grpc.RpcError):
            raise error
        from doherty._core._explain import explain  # noqa: PLC0415 - needed only after a failure
        from doherty._core._status import read_status  # noqa: PLC0415

        status = read_status(error, timed_out=attempts.remaining() == 0)
        obstacle = yield from self._find_obstacle(status, target, attempts)
        if self.shared.disconnected:
            return ClientClosedError("The client was closed.")
        status = replace(status, obstacle=obstacle, reason=status.reason or (obstacle.reason if obstacle else None))
        free_in = self.targets.failed(target, status.retry_after) if status.may_pass(begun=begun) else inf
        pause = attempts.pause(status, begun=begun, free_in=free_in)
        attempts.log.fail(status, pause)
        if pause is None:
            status = attempts.final_status(status)
            if not status.answered and status.may_pass(begun=begun):
                # gRPC's core and proxies have several codes for a broken connection. Callers get a single one.
                status = replace(status, code=grpc.StatusCode.UNAVAILABLE)
            return explain(
                status,
                target=target.name,
                begun=begun,
                attempts=attempts.count,
                elapsed=attempts.elapsed(),
                deadline=attempts.passed_deadline(),
                before=attempts.last_failure,
            )
        attempts.trace.attempt_failed(target.name, status)
        return pause

    def _find_obstacle(self, status: "Status", target: Target, attempts: CallAttempts) -> "Actions[Obstacle | None]":
        """Returns why an attempt did not reach a server.

        If a server requires TLS or a certificate, it closes the connection, and gRPC does not report why. So this asks
        the server once, unless the client has a certificate: then the connection may have broken for another reason.
        """
        from doherty._core._unreachable import address_of_silent_server, find_obstacle  # noqa: PLC0415 - as above

        settings = self.settings
        obstacle = find_obstacle(status, encrypted=settings.credentials is not None)
        if obstacle not in (Obstacle.NOT_READY, Obstacle.CONNECTION_ENDED) or not settings.lacks_certificate:
            return obstacle
        address = address_of_silent_server(status)
        if address is None:
            return obstacle
        if target.tls is None:
            remaining = attempts.remaining()
            seconds = _LONGEST_LOOK if remaining is None else min(remaining, _LONGEST_LOOK)
            answer: TlsUse | ClientClosedError | None = yield AskForTls(address, seconds)
            if not isinstance(answer, TlsUse):
                return obstacle
            target.tls = answer
        if settings.credentials is None:
            return obstacle if target.tls is TlsUse.NONE else Obstacle.TLS_REQUIRED
        return Obstacle.CERTIFICATE_REQUIRED if target.tls is TlsUse.MUTUAL else obstacle


def start_trace(request: "GenerateRequest", *, stream: bool) -> Trace:
    """Starts the trace of a call."""
    # A program that uses OpenTelemetry has imported it by now. An import here would slow down all other programs.
    if "opentelemetry.trace" not in sys.modules:
        return NO_TRACE
    from doherty._core._span import SpanTrace  # noqa: PLC0415 - optional

    return SpanTrace(request, stream=stream)
