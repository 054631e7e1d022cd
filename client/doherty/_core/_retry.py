"""The retry policy of a client and the attempts of one call."""

import threading
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, Final

import grpc

from doherty._core._log import AttemptLog
from doherty._core._metadata import NO_PAIRS, Pairs, merge
from doherty._core._obstacle import MISTAKES, Obstacle
from doherty._core._results import ReplyMetadata, reply_metadata
from doherty._core._trace import NO_TRACE

if TYPE_CHECKING:
    from doherty._core._results import RawMetadata
    from doherty._core._status import Status

_MAX_RESUMES: Final = 5
"""A limit, so that a request that crashes servers does not crash one after the other."""

_RESUME_SECONDS: Final = 60.0
"""How long a stream without a deadline tries to resume."""

_WAIT_SECONDS: Final = 60.0
"""How long a call without a deadline waits for a server that is not ready."""

_CLOCK_SECONDS: Final = 0.05
"""gRPC may report that a deadline has passed up to this many seconds before our clock does."""

_MIN_SHARE: Final = 0.1
"""If an attempt had less than this share of the call's time, its timeout is not evidence of a slow server."""

_MIN_SECONDS: Final = 0.2
"""The same in seconds: on a busy machine, even a refused connection can take that long."""

_ATTEMPTS: Final = "doherty-attempts"
"""Metadata: the number of attempts before this one."""

_TRYING_SINCE: Final = "doherty-trying-since-ms"
"""Metadata: the milliseconds since the first attempt, which decides the place in the server's queue."""

_EARNS_ONE: Final = 10
"""This many calls that succeed at the first attempt earn one retry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When a failed call is retried.

    A call is retried if its server is not available (UNAVAILABLE before the first token), or if the server is full and
    said when to retry (RESOURCE_EXHAUSTED with RetryInfo). All attempts together stay within the call's timeout.
    """

    max_attempts: int = 4
    """Maximum number of attempts of a call, including the first. At least 1, which disables retries. Attempts of
    `wait_for_ready` do not count."""
    wait_for_ready: bool = True
    """Whether a call waits for a server that cannot be reached, is starting, or is being replaced. It waits as long as
    its timeout allows, or 60 s if it has none. If False, such a call fails after `max_attempts`, like any other."""
    initial_backoff: float = 0.1
    """Maximum pause before the second attempt, in seconds; the actual pause is random between 0 and this. If the server
    requests a pause, that is used instead. If another target is available, there is no pause."""
    backoff_multiplier: float = 2.0
    """The factor by which the maximum pause grows with each attempt. At least 1."""
    max_backoff: float = 2.0
    """The upper limit of the pause, in seconds."""
    budget: int = 100
    """The retry budget of the client: the number of failed retries that all its calls may make together. A successful
    retry is returned to the budget, and every ten calls that succeed at the first attempt add one. So retries cannot
    make an outage worse."""

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts is at least 1, not {self.max_attempts!r}.")
        if self.budget < 0:
            raise ValueError(f"budget is at least 0, not {self.budget!r}.")
        if not self.backoff_multiplier >= 1:
            raise ValueError(f"backoff_multiplier is at least 1, not {self.backoff_multiplier!r}.")
        if not 0 <= self.initial_backoff <= self.max_backoff:
            raise ValueError("0 <= initial_backoff <= max_backoff does not hold.")


def limit_retries(policy: RetryPolicy | None, max_retries: int | None) -> RetryPolicy | None:
    """Returns the policy with `max_retries` retries; the same policy if that is None."""
    return policy if max_retries is None else replace(policy or RetryPolicy(), max_attempts=max_retries + 1)


class Budget:
    """Counts the remaining retries of one client. Thread-safe."""

    def __init__(self, size: int) -> None:
        """`size` is the initial and the maximum number of retries."""
        self.size = size
        self._max_left = self._left = size * _EARNS_ONE
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Takes one retry. Returns False if none is left."""
        with self._lock:
            if self._left < _EARNS_ONE:
                return False
            self._left -= _EARNS_ONE
            return True

    def earn(self, *, retried: bool) -> None:
        """Records that a call succeeded."""
        with self._lock:
            self._left = min(self._left + (_EARNS_ONE if retried else 1), self._max_left)


class CallAttempts:
    """The attempts of one call, and their common deadline."""

    # Defaults are attributes of the class: every call makes one of these objects, and few calls change all of them.
    count = 0
    """The number of attempts that were started."""
    resumed = 0
    """The number of times the answer was resumed."""
    last_failure: str | None = None
    """The message of the last failed attempt after which another was made."""
    trace = NO_TRACE
    """The trace of the call."""
    shared_metadata = NO_PAIRS
    """The metadata of all calls of the client, with the key."""
    own_metadata = NO_PAIRS
    """The metadata of this call alone."""
    _reply_metadata: "tuple[RawMetadata, RawMetadata]" = (None, None)
    _lost_at: float | None = None
    _in_vain = 0
    _retried = False
    _waited = 0
    _not_ready: "Status | None" = None
    """How the last attempt ended, if the call waits for its server."""
    _allowance: float | None = None
    """The seconds that the current attempt may take; None means no limit."""

    def __init__(
        self,
        policy: RetryPolicy | None,
        budget: Budget,
        timeout: float | None,
        *,
        resume: bool,
        whose_timeout: str = "the timeout of the call",
    ) -> None:
        """The call's time starts now.

        Args:
            policy: None means no retries.
            budget: Shared by all calls of the client.
            timeout: The seconds that all attempts together may take; None means no limit.
            resume: Whether an answer that is cut off is resumed.
            whose_timeout: The origin of the timeout, for messages.
        """
        self._policy = policy or RetryPolicy()
        self._retry = policy is not None
        self._budget = budget
        self._resume = resume
        self._timeout = timeout
        self._whose_timeout = whose_timeout
        self._begun_at = monotonic()
        self._ends_at = None if timeout is None else self._begun_at + timeout
        self.log = AttemptLog()
        """Writes the log lines of the call."""

    @property
    def is_resuming(self) -> bool:
        """Whether the answer was cut off, and no more of it has arrived since."""
        return self._lost_at is not None

    @property
    def metadata(self) -> Pairs:
        """The metadata of the current attempt."""
        own = merge(self.shared_metadata, self.own_metadata)
        if self.trace.metadata:
            own = merge(own, Pairs(self.trace.metadata))
        before = self.count - 1
        if not before:
            return own
        since = (_TRYING_SINCE, str(int(self.elapsed() * 1000)))
        return Pairs(((_ATTEMPTS, str(before)), since, *own))

    def keep_reply_metadata(self, initial: "RawMetadata", trailing: "RawMetadata") -> None:
        """Stores the metadata of the reply, in gRPC's format."""
        self._reply_metadata = initial, trailing

    @property
    def reply_metadata(self) -> ReplyMetadata:
        """The metadata of the reply."""
        return reply_metadata(*self._reply_metadata)

    def elapsed(self) -> float:
        """Returns the seconds since the call started."""
        return monotonic() - self._begun_at

    def remaining(self) -> float | None:
        """Returns the seconds until the call's deadline; None if it has none."""
        return None if self._ends_at is None else max(0.0, self._ends_at - monotonic())

    def passed_deadline(self) -> str | None:
        """Describes the call's timeout once it has passed; None before that."""
        if self._ends_at is None or monotonic() < self._ends_at - _CLOCK_SECONDS:
            return None
        return f"{self._timeout:g} s ({self._whose_timeout})"

    def begin_attempt(self) -> None:
        """Counts an attempt."""
        self.count += 1
        self._allowance = self.remaining()

    def final_status(self, status: "Status") -> "Status":
        """Returns the status of the call, given that of its last attempt.

        If the call waited for a server until its deadline, the server was not reached, even if the last attempt was
        too short to notice that.
        """
        before, timeout, allowance = self._not_ready, self._timeout, self._allowance
        if before is None or timeout is None or allowance is None:
            return status
        if allowance >= max(_MIN_SHARE * timeout, _MIN_SECONDS):
            return status
        is_ours = status.code is grpc.StatusCode.DEADLINE_EXCEEDED and not status.answered and self.passed_deadline()
        return before if is_ours else status

    def progressed(self) -> None:
        """Records that the current attempt has received its first message."""
        self._in_vain = 0
        if self._lost_at is not None:
            self._lost_at = None
            self.resumed += 1

    def succeeded(self) -> None:
        """Records that the call is complete."""
        self._budget.earn(retried=self._retried)

    def pause(self, status: "Status", *, begun: bool, free_in: float) -> float | None:
        """Decides whether a failed attempt is followed by another.

        Args:
            status: The status of the attempt.
            begun: Whether a part of the answer was received, by this attempt or an earlier one.
            free_in: The seconds until any target is available, including the failed one.

        Returns:
            The seconds to wait before the next attempt; None if there is no next one.
        """
        waits = not begun and self._waits(status)
        if not status.may_pass(begun=begun) or not self._may_follow(begun=begun, waits=waits):
            return None
        if status.obstacle in MISTAKES and free_in:
            return None
        self._in_vain += 1
        pause = self._backoff(status, free_in) if free_in else 0.0
        remaining = self.remaining()
        if remaining is not None and pause >= remaining:
            return None
        self._not_ready = status if waits else None
        if waits:
            # Waiting does not use the budget, because no server worked on the call.
            self._waited += 1
        elif not begun:
            if not self._budget.take():
                return None
            self._retried = True
        self.last_failure = status.message
        return pause

    def _waits(self, status: "Status") -> bool:
        """Whether the call waits for a server."""
        policy = self._policy
        return status.obstacle is Obstacle.NOT_READY and policy.wait_for_ready and policy.max_attempts > 1

    def _may_follow(self, *, begun: bool, waits: bool) -> bool:
        if begun:
            return self._may_resume()
        if waits:
            return self._retry and (self._ends_at is not None or self.elapsed() <= _WAIT_SECONDS)
        return self._retry and self.count - self._waited < self._policy.max_attempts

    def _may_resume(self) -> bool:
        """Resuming does not use the budget, because a server had already accepted the work."""
        if not self._resume or self.resumed >= _MAX_RESUMES:
            return False
        now = monotonic()
        if self._lost_at is None:
            self._lost_at = now
        return self._ends_at is not None or now - self._lost_at <= _RESUME_SECONDS

    def _backoff(self, status: "Status", free_in: float) -> float:
        import random  # noqa: PLC0415 - needed only after a failure

        if status.retry_after is not None:
            # The jitter only adds time: an earlier attempt would be refused again.
            return min(status.retry_after, free_in) * random.uniform(1.0, 1.1)  # noqa: S311 - no secret
        policy = self._policy
        longest = policy.initial_backoff * policy.backoff_multiplier ** min(self._in_vain - 1, 30)
        return random.uniform(0.0, min(longest, policy.max_backoff))  # noqa: S311 - no secret
