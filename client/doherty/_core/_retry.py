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

_MOST_RESUMES: Final = 5
"""A limit, so that a request that crashes servers does not reach one after the other."""

_RESUME_SECONDS: Final = 60.0
"""How long a stream without a deadline tries to resume."""

_WAIT_SECONDS: Final = 60.0
"""How long a call without a deadline waits for a server that is not ready."""

_CLOCK_SECONDS: Final = 0.05
"""How much earlier than we gRPC may find that a deadline has passed."""

_LEAST_SHARE: Final = 0.1
"""An attempt that has less than this share of the call's time says nothing if that runs out."""

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
    """The most attempts of a call, including the first. At least 1, which is no retry at all. Attempts of
    `wait_for_ready` do not count."""
    wait_for_ready: bool = True
    """Whether a call waits for a server that cannot be reached, or that starts or is replaced: as long as its timeout
    allows, or 60 s without one. If not, such a call fails after `max_attempts`, too."""
    initial_backoff: float = 0.1
    """The longest pause before the second attempt, in seconds; the actual pause is random between 0 and this. If the
    server asks for a pause, that is used instead. If another target is available, there is no pause."""
    backoff_multiplier: float = 2.0
    """The factor by which the longest pause grows with each attempt. At least 1."""
    max_backoff: float = 2.0
    """The upper limit of the pause, in seconds."""
    budget: int = 100
    """The retry budget of the client: the failed retries that all its calls together may make. A retry that succeeds is
    given back, and ten calls that succeed at once earn one more. This keeps retries from making an outage worse."""

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
    """The policy with another number of attempts, unless `max_retries` is None."""
    return policy if max_retries is None else replace(policy or RetryPolicy(), max_attempts=max_retries + 1)


class Budget:
    """The retries that the calls of one client have left. Threads may share it."""

    def __init__(self, size: int) -> None:
        """`size` is the number of retries to begin with, and the most it can grow to."""
        self.size = size
        self._most = self._left = size * _EARNS_ONE
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Takes one retry, and returns whether there was one."""
        with self._lock:
            if self._left < _EARNS_ONE:
                return False
            self._left -= _EARNS_ONE
            return True

    def earn(self, *, retried: bool) -> None:
        """Notes that a call succeeded."""
        with self._lock:
            self._left = min(self._left + (_EARNS_ONE if retried else 1), self._most)


class CallAttempts:
    """The attempts of one call, and the time that they have together."""

    # Defaults are attributes of the class: every call makes one of these objects, and few calls change all of them.
    count = 0
    """How many attempts were begun."""
    resumed = 0
    """How many times the answer was resumed."""
    last_failure: str | None = None
    """What the last attempt that was followed by another one failed with."""
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
    """The seconds that the running attempt has; None is no end."""

    def __init__(
        self,
        policy: RetryPolicy | None,
        budget: Budget,
        timeout: float | None,
        *,
        resume: bool,
        whose_timeout: str = "the timeout of the call",
    ) -> None:
        """Begins now.

        Args:
            policy: None means no retries.
            budget: Shared by all calls of the client.
            timeout: The seconds that all attempts have; None is no end.
            resume: Whether an answer that was cut off is resumed.
            whose_timeout: Who set it, for messages.
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
        """Whether the answer was cut off and no more of it has come since."""
        return self._lost_at is not None

    @property
    def metadata(self) -> Pairs:
        """The metadata of the running attempt."""
        own = merge(self.shared_metadata, self.own_metadata)
        if self.trace.metadata:
            own = merge(own, Pairs(self.trace.metadata))
        before = self.count - 1
        if not before:
            return own
        since = (_TRYING_SINCE, str(int(self.elapsed() * 1000)))
        return Pairs(((_ATTEMPTS, str(before)), since, *own))

    def keep_reply_metadata(self, initial: "RawMetadata", trailing: "RawMetadata") -> None:
        """Keeps what came with the reply, as gRPC has it."""
        self._reply_metadata = initial, trailing

    @property
    def reply_metadata(self) -> ReplyMetadata:
        """What came with the reply."""
        return reply_metadata(*self._reply_metadata)

    def elapsed(self) -> float:
        """How many seconds the call has taken."""
        return monotonic() - self._begun_at

    def remaining(self) -> float | None:
        """How many seconds the call has left; None for no end."""
        return None if self._ends_at is None else max(0.0, self._ends_at - monotonic())

    def passed_deadline(self) -> str | None:
        """How long the call's time was and who set it, once it is over; None before that."""
        if self._ends_at is None or monotonic() < self._ends_at - _CLOCK_SECONDS:
            return None
        return f"{self._timeout:g} s ({self._whose_timeout})"

    def begin_attempt(self) -> None:
        """Counts an attempt."""
        self.count += 1
        self._allowance = self.remaining()

    def final_status(self, status: "Status") -> "Status":
        """How the call ended, where `status` is how its last attempt did.

        A call that waited for a server until its time was over did not reach it, also if its last attempt had no time
        to find that out.
        """
        before, timeout, allowance = self._not_ready, self._timeout, self._allowance
        if before is None or timeout is None or allowance is None or allowance >= _LEAST_SHARE * timeout:
            return status
        is_ours = status.code is grpc.StatusCode.DEADLINE_EXCEEDED and not status.answered and self.passed_deadline()
        return before if is_ours else status

    def progressed(self) -> None:
        """Notes that the running attempt has received its first message."""
        self._in_vain = 0
        if self._lost_at is not None:
            self._lost_at = None
            self.resumed += 1

    def succeeded(self) -> None:
        """Notes that the call is complete."""
        self._budget.earn(retried=self._retried)

    def pause(self, status: "Status", *, begun: bool, free_in: float) -> float | None:
        """Decides what follows a failed attempt.

        Args:
            status: How the attempt ended.
            begun: Whether something of the answer was received, by this attempt or one before it.
            free_in: The seconds until any target is available, the failed one or another.

        Returns:
            The seconds to wait before the next attempt; None for no further one.
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
            # Waiting does not use the budget: no server worked on the call.
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
        if not self._resume or self.resumed >= _MOST_RESUMES:
            return False
        now = monotonic()
        if self._lost_at is None:
            self._lost_at = now
        return self._ends_at is not None or now - self._lost_at <= _RESUME_SECONDS

    def _backoff(self, status: "Status", free_in: float) -> float:
        import random  # noqa: PLC0415 - only a failed call pays for it

        if status.retry_after is not None:
            # The jitter only adds time, because an earlier attempt would be refused again.
            return min(status.retry_after, free_in) * random.uniform(1.0, 1.1)  # noqa: S311 - no secret
        policy = self._policy
        longest = policy.initial_backoff * policy.backoff_multiplier ** min(self._in_vain - 1, 30)
        return random.uniform(0.0, min(longest, policy.max_backoff))  # noqa: S311 - no secret
