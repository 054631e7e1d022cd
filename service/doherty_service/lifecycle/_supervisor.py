"""Keeps an engine running: finds out when it died or hangs, and starts a new one in its place."""

import asyncio
import contextlib
import gc
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from doherty_engine import (
    Engine,
    EngineError,
    EngineRequest,
    EngineSetupError,
    OutOfResourcesError,
    RawText,
    Sampling,
    Stopping,
    is_shortage,
)
from doherty_service._errors import ENGINE_RESTART_SECONDS, OverloadedError, UnavailableError
from doherty_service.admission import Priority, Ticket
from doherty_service.generation import EngineSession, Generations, WholeAnswer
from doherty_service.process import describe
from doherty_service.security import ANYBODY
from doherty_service.telemetry import LatencyRecorder, RequestRecord, awake, log_error, log_event, log_warning

_LOOK_SECONDS = 0.25
"""How often the engine's health is looked at; a request that fails makes it be looked at at once."""

_FAILURES_WINDOW_SECONDS = 600.0
"""Failures further apart than this are not of one illness."""

_FIRST_BACKOFF_SECONDS = 0.5
_LONGEST_BACKOFF_SECONDS = 30.0

STOP_SECONDS = 30.0
"""An engine that has not given its memory back by then never will."""


class EngineLostError(Exception):
    """The engine cannot be kept running; the message is one sentence for the log."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an engine may be silent, and how often it may fail."""

    step_timeout: float
    """Seconds without a step while requests run."""
    canary_interval: float
    """Seconds without work after which the engine is tried out; 0 is never."""
    most_failures: int
    """Within ten minutes; one more, and the server gives up."""


class Supervisor:
    """Starts engines, one after the other."""

    def __init__(
        self,
        make_engine: Callable[[], Engine],
        generations: Generations,
        recorder: LatencyRecorder,
        patience: Patience,
        on_serving: Callable[[bool], Awaitable[None]],
    ) -> None:
        """`on_serving` is told whenever the server begins or ceases to be able to answer."""
        self._make_engine = make_engine
        self._generations = generations
        self._recorder = recorder
        self._patience = patience
        self._on_serving = on_serving
        self._failures: deque[float] = deque()
        self._engine: Engine | None = None

    async def run(self) -> None:
        """Keeps an engine running until it is cancelled; the engine is then still there, for `stop`.

        Raises:
            EngineSetupError: the first one cannot start.
            EngineLostError: engines fail again and again, or one cannot be stopped.
        """
        session = await self._start()
        while True:
            try:
                why = await self._watch(session)
            except Exception as error:  # noqa: BLE001 - of the engine's libraries: it does not do what it should
                log_error("engine_not_watched", cause=error, error=describe(error))
                why = f"it cannot be watched: {describe(error)}"
            session = await self._restart(why)

    async def stop(self) -> None:
        """Stops the engine, if there is one."""
        if self._engine is not None:
            await self._engine.stop()
            self._engine = None

    async def _start(self) -> EngineSession:
        """Starts an engine.

        Raises:
            EngineSetupError: it cannot start.
        """
        begun = time.monotonic()
        gc.unfreeze()  # what an engine before this one has left
        try:
            self._engine = engine = self._make_engine()
            session = EngineSession(engine, self._recorder)
            await engine.start(session.sink)
        except EngineSetupError:
            raise
        except EngineError as error:
            raise EngineSetupError(f"The engine cannot start: {error}.") from error
        except Exception as error:  # the system and an engine's libraries raise what they like
            log_error("engine_not_started", cause=error, error=describe(error))
            raise EngineSetupError(f"The engine cannot start: {describe(error)}.") from error
        _spare_collector()
        log_event("loaded", seconds=round(time.monotonic() - begun, 3))
        self._generations.begin(session)
        await self._on_serving(True)  # noqa: FBT003 - its only parameter
        return session

    async def _watch(self, session: EngineSession) -> str:
        """Returns when the engine has failed, with the reason for the log."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await session.request_failed.wait()
            session.request_failed.clear()
            health = session.engine.health()
            if not health.ok:
                return health.detail
            silence = awake.seconds_since(session.last_sign)
            if session.is_busy:
                if silence > self._patience.step_timeout:
                    return f"no step for {silence:.1f} s while requests run"
            elif 0 < self._patience.canary_interval < silence and (why := await self._try_out(session)):
                return why

    async def _try_out(self, session: EngineSession) -> str | None:
        """Generates a token, when there is nothing else to do; returns what went wrong."""
        # No conversation: a model need not have a chat template. Greedy: an engine need not sample.
        key = f"canary-{uuid.uuid4().hex}"
        answer = WholeAnswer(RequestRecord("canary", key, key, ANYBODY))
        answer.request = EngineRequest(key, RawText("Hello"), Sampling(temperature=0.0), Stopping(max_output_tokens=1))
        answer.ticket = Ticket(Priority.BATCH, 0, most_tokens=1, whole=True)
        self._generations.begin_answer(answer)
        try:
            answer.model = self._generations.model()
            await awake.within(self._patience.step_timeout, self._generations.serve(answer))
        except TimeoutError:
            return f"no answer to a canary within {self._patience.step_timeout} s"
        except (OverloadedError, UnavailableError):
            pass  # there is something else to do, or the server goes away
        except Exception as error:
            if isinstance(error, OutOfResourcesError) or is_shortage(error):
                log_warning("canary_not_run", error=describe(error))  # which says nothing of the engine
            elif isinstance(error, EngineError):
                return f"a canary failed: {error}"
            else:
                raise
        finally:
            self._generations.end_answer(answer)
        session.last_step = time.monotonic()
        return None

    async def _restart(self, why: str) -> EngineSession:
        """Ends all requests, and brings a new engine up, after as many tries as that takes."""
        while True:
            self._note_failure()
            failures = len(self._failures)
            backoff = min(_FIRST_BACKOFF_SECONDS * 2 ** (failures - 1), _LONGEST_BACKOFF_SECONDS)
            log_error("engine_failed", reason=why, failures=failures, restart_seconds=backoff)
            await self._cease(backoff)
            self._give_up_if_hopeless(why)
            await asyncio.sleep(backoff)
            try:
                session = await self._start()
            except EngineSetupError as error:
                why = str(error)
            else:
                self._recorder.engine_restarts += 1
                return session

    async def _cease(self, backoff: float) -> None:
        """Ends all requests first, then tells that there is no engine, then makes that true."""
        after = backoff + ENGINE_RESTART_SECONDS
        self._generations.lose_engine(
            UnavailableError("ENGINE_FAILED", "the engine failed while it worked on this", retry_after=after),
            UnavailableError("ENGINE_RESTARTING", "the engine failed and is being started again", retry_after=after),
        )
        await self._on_serving(False)  # noqa: FBT003 - its only parameter
        try:
            await awake.within(STOP_SECONDS, self.stop())
        except TimeoutError:
            raise EngineLostError(
                "The engine failed and cannot be stopped; the process must be started again."
            ) from None
        except Exception as error:
            raise EngineLostError(
                f"The engine failed and cannot be stopped ({describe(error)}); the process must be started again."
            ) from error

    def _note_failure(self) -> None:
        now = time.monotonic()
        self._failures.append(now)
        while self._failures[0] < now - _FAILURES_WINDOW_SECONDS:
            self._failures.popleft()

    def _give_up_if_hopeless(self, why: str) -> None:
        if len(self._failures) > self._patience.most_failures:
            raise EngineLostError(f"The engine failed {len(self._failures)} times in ten minutes, at last so: {why}.")


def _spare_collector() -> None:
    """Takes all that is there now out of garbage collection, for it stays as long as the engine.

    The libraries of an engine make half a million objects. A collection that goes through them takes a fifth of a
    second, in which no answer gets a token.
    """
    gc.collect()
    gc.freeze()
