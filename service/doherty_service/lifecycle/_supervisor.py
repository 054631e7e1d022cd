"""Keeps an engine running: detects that it has died or hangs, and replaces it."""

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

_CHECK_SECONDS = 0.25
"""The interval between checks of the engine's health. A failed request triggers an immediate check."""

_FAILURES_WINDOW_SECONDS = 600.0
"""Failures older than this no longer count."""

_MIN_BACKOFF_SECONDS = 0.5
_MAX_BACKOFF_SECONDS = 30.0

STOP_SECONDS = 30.0
"""An engine that takes longer than this to stop is considered hung."""


class EngineLostError(Exception):
    """The engine cannot be kept running. The message is one sentence for the log."""


@dataclass(frozen=True, slots=True)
class SupervisionSettings:
    """When an engine counts as failed, and when the server gives up."""

    step_timeout: float
    """The engine has failed after this many seconds without a step while requests run."""
    canary_interval: float
    """The engine gets a test request after this many seconds without work; 0 means never."""
    max_failures: int
    """The server gives up after more failures than this within ten minutes."""


class Supervisor:
    """Starts an engine, watches it, and replaces it when it fails."""

    def __init__(
        self,
        make_engine: Callable[[], Engine],
        generations: Generations,
        recorder: LatencyRecorder,
        settings: SupervisionSettings,
        on_serving: Callable[[bool], Awaitable[None]],
    ) -> None:
        """`on_serving` is called with True when an engine is ready, and with False when it has failed."""
        self._make_engine = make_engine
        self._generations = generations
        self._recorder = recorder
        self._settings = settings
        self._on_serving = on_serving
        self._failures: deque[float] = deque()
        self._engine: Engine | None = None

    async def run(self) -> None:
        """Keeps an engine running until this is cancelled. The engine then still runs; `stop` stops it.

        Raises:
            EngineSetupError: The first engine cannot start.
            EngineLostError: Engines fail too often, or one cannot be stopped.
        """
        session = await self._start()
        while True:
            try:
                failure = await self._watch(session)
            except Exception as error:  # noqa: BLE001 - an engine's libraries can raise anything
                log_error("engine_not_watched", cause=error, error=describe(error))
                failure = f"it cannot be monitored: {describe(error)}"
            session = await self._restart(failure)

    async def stop(self) -> None:
        """Stops the engine, if one runs."""
        if self._engine is not None:
            await self._engine.stop()
            self._engine = None

    async def _start(self) -> EngineSession:
        """Starts an engine.

        Raises:
            EngineSetupError: The engine cannot start.
        """
        start = time.monotonic()
        gc.unfreeze()  # makes the objects of the previous engine collectable
        try:
            self._engine = engine = self._make_engine()
            session = EngineSession(engine, self._recorder)
            await engine.start(session.sink)
        except EngineSetupError:
            raise
        except EngineError as error:
            raise EngineSetupError(f"The engine cannot start: {error}.") from error
        except Exception as error:  # the system and an engine's libraries can raise anything
            log_error("engine_not_started", cause=error, error=describe(error))
            raise EngineSetupError(f"The engine cannot start: {describe(error)}.") from error
        _freeze_objects()
        log_event("loaded", seconds=round(time.monotonic() - start, 3))
        self._generations.begin(session)
        await self._on_serving(True)  # noqa: FBT003 - its only parameter
        return session

    async def _watch(self, session: EngineSession) -> str:
        """Waits until the engine fails, and returns the reason for the log."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CHECK_SECONDS):
                    await session.request_failed.wait()
            session.request_failed.clear()
            health = session.engine.health()
            if not health.ok:
                return health.detail
            silence = awake.seconds_since(session.last_sign)
            if session.is_busy:
                if silence > self._settings.step_timeout:
                    return f"no step for {silence:.1f} s while requests run"
            elif 0 < self._settings.canary_interval < silence and (failure := await self._send_canary(session)):
                return failure

    async def _send_canary(self, session: EngineSession) -> str | None:
        """Sends a test request for one token to an idle engine. Returns what went wrong, or None."""
        # It uses raw text and greedy decoding, because a model may lack a chat template and an engine may not sample.
        key = f"canary-{uuid.uuid4().hex}"
        answer = WholeAnswer(RequestRecord("canary", key, key, ANYBODY))
        answer.request = EngineRequest(key, RawText("Hello"), Sampling(temperature=0.0), Stopping(max_output_tokens=1))
        answer.ticket = Ticket(Priority.BATCH, 0, max_tokens=1, whole=True)
        self._generations.begin_answer(answer)
        try:
            answer.model = self._generations.model()
            await awake.within(self._settings.step_timeout, self._generations.serve(answer))
        except TimeoutError:
            return f"no answer to a canary within {self._settings.step_timeout} s"
        except (OverloadedError, UnavailableError):
            pass  # the engine has other work by now, or the server shuts down
        except Exception as error:
            if isinstance(error, OutOfResourcesError) or is_shortage(error):
                log_warning("canary_not_run", error=describe(error))  # a shortage does not mean that the engine failed
            elif isinstance(error, EngineError):
                return f"a canary failed: {error}"
            else:
                raise
        finally:
            self._generations.end_answer(answer)
        session.last_step = time.monotonic()
        return None

    async def _restart(self, failure: str) -> EngineSession:
        """Ends all requests, and tries to start a new engine until that succeeds or there are too many failures."""
        while True:
            self._count_failure()
            failures = len(self._failures)
            backoff = min(_MIN_BACKOFF_SECONDS * 2 ** (failures - 1), _MAX_BACKOFF_SECONDS)
            log_error("engine_failed", reason=failure, failures=failures, restart_seconds=backoff)
            await self._stop_failed_engine(backoff)
            self._check_failures(failure)
            await asyncio.sleep(backoff)
            try:
                session = await self._start()
            except EngineSetupError as error:
                failure = str(error)
            else:
                self._recorder.engine_restarts += 1
                return session

    async def _stop_failed_engine(self, backoff: float) -> None:
        """Ends all requests, reports NOT_SERVING, and then stops the engine."""
        retry_after = backoff + ENGINE_RESTART_SECONDS
        self._generations.lose_engine(
            UnavailableError("ENGINE_FAILED", "the engine failed during the request", retry_after=retry_after),
            UnavailableError("ENGINE_RESTARTING", "the engine failed and is restarting", retry_after=retry_after),
        )
        await self._on_serving(False)  # noqa: FBT003 - its only parameter
        try:
            await awake.within(STOP_SECONDS, self.stop())
        except TimeoutError:
            raise EngineLostError("The engine failed and cannot be stopped; the process must be restarted.") from None
        except Exception as error:
            raise EngineLostError(
                f"The engine failed and cannot be stopped ({describe(error)}); the process must be restarted."
            ) from error

    def _count_failure(self) -> None:
        now = time.monotonic()
        self._failures.append(now)
        while self._failures[0] < now - _FAILURES_WINDOW_SECONDS:
            self._failures.popleft()

    def _check_failures(self, failure: str) -> None:
        if len(self._failures) > self._settings.max_failures:
            raise EngineLostError(
                f"The engine failed {len(self._failures)} times in ten minutes; the last failure was: {failure}."
            )


def _freeze_objects() -> None:
    """Excludes all existing objects from garbage collection, because they live as long as the engine.

    The libraries of an engine create half a million objects. A collection that includes them takes 0.2 s, in which no
    answer gets a token.
    """
    gc.collect()
    gc.freeze()
