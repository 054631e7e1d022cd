"""From the start of the process to its end: load, serve, drain."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NoReturn

import uvloop
from grpc_health.v1 import health

from doherty_engine import Engine, create_engine
from doherty_service._generations import Generations
from doherty_service._log import log_error, log_event, set_up_logging
from doherty_service._metrics import MetricsEndpoint, ServerCollector
from doherty_service._server import bind, build_server, set_health
from doherty_service._settings import Settings
from doherty_service._supervisor import STOP_SECONDS, EngineLostError, Patience, Supervisor
from doherty_service.latency import LatencyRecorder
from doherty_service.tracing import Tracing, start_tracing

_SWITCH_INTERVAL = 0.0002
"""Seconds. Where another thread runs Python, as the embedded engine's do, the default of 5 ms shows as p99 latency."""

_LAST_WORDS = 0.5
"""Seconds that replies already made have to leave, and open health watches to end."""


def run(settings: Settings) -> bool:
    """Serves until SIGTERM or SIGINT, and returns once what was in flight has ended.

    Returns whether it was a signal that ended it, and not an engine that cannot be kept running.

    Raises:
        EngineSetupError: the server cannot start; the message is one sentence that says what to do.
    """
    set_up_logging(settings.log_level)
    sys.setswitchinterval(_SWITCH_INTERVAL)
    options = dict(settings.engine_option)
    if settings.model:
        options["model"] = settings.model
    make_engine = partial(create_engine, settings.engine, options)
    make_engine()  # a wrong option is told before anything is bound
    tracing = start_tracing()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(settings, make_engine, tracing))
    finally:
        if tracing is not None:
            tracing.stop()


async def _serve(settings: Settings, make_engine: Callable[[], Engine], tracing: Tracing | None) -> bool:
    signals = _Signals()  # before the model is loaded, which can take minutes
    recorder = LatencyRecorder(settings.latency_window)
    generations = Generations(
        recorder, max_queued=settings.max_queued_requests, max_queued_bytes=settings.max_queued_bytes
    )
    health_servicer = health.aio.HealthServicer()
    await set_health(health_servicer, serving=False)
    server = build_server(settings, generations, recorder, health_servicer, tracing)
    address = bind(server, settings)
    metrics = None
    if settings.metrics_listen:
        metrics = MetricsEndpoint(settings.metrics_listen, ServerCollector(recorder, generations, settings.engine))
    await server.start()
    log_event("listening", address=address, engine=settings.engine)

    async def on_serving(serving: bool) -> None:  # noqa: FBT001 - its only parameter
        await set_health(health_servicer, serving=serving)
        if serving:
            log_event("ready", address=address, model=generations.model().model)

    patience = Patience(settings.step_timeout, settings.canary_interval, settings.max_engine_failures)
    supervisor = Supervisor(make_engine, generations, recorder, patience, on_serving)
    supervising = asyncio.ensure_future(supervisor.run())
    watching = asyncio.ensure_future(generations.readers.watch(settings.stall_timeout))
    is_lost = False
    try:
        await _first(supervising, watching, signals.first.wait())
        for task in (supervising, watching):
            if task.done():
                task.result()
        if generations.is_ready:
            await _drain(settings, generations, health_servicer, signals.second)
    except EngineLostError as error:
        log_error("engine_lost", reason=str(error))
        is_lost = True
    finally:
        supervising.cancel()
        watching.cancel()
        await server.stop(_LAST_WORDS)
        stopping = _stop_engine(supervising, supervisor)
        await _first(stopping, asyncio.sleep(0 if is_lost else STOP_SECONDS), signals.second.wait())
        if metrics is not None:
            await metrics.stop()
    log_event("stopped")
    if supervisor.has_engine:
        _leave(tracing, int(is_lost))
    return not is_lost


async def _stop_engine(supervising: "asyncio.Future[None]", supervisor: Supervisor) -> None:
    """Stops the engine once nobody starts another one any more."""
    await asyncio.gather(supervising, return_exceptions=True)
    await supervisor.stop()


def _leave(tracing: Tracing | None, code: int) -> NoReturn:
    """Ends the process without its engine, which hangs or still loads: Python would wait for its threads."""
    if tracing is not None:
        tracing.stop()
    logging.shutdown()
    os._exit(code)


async def _drain(
    settings: Settings, generations: Generations, health_servicer: health.aio.HealthServicer, hurry: asyncio.Event
) -> None:
    """Says that it goes away, gives that time to get round, and then lets what is in flight finish."""
    await health_servicer.enter_graceful_shutdown()
    if settings.drain_delay:
        log_event("withdrawn", requests=generations.in_flight, delay_seconds=settings.drain_delay)
        await _first(asyncio.sleep(settings.drain_delay), hurry.wait())
    generations.close()
    log_event("draining", requests=generations.in_flight, grace_seconds=settings.drain_grace)
    await _first(generations.finished(), asyncio.sleep(settings.drain_grace), hurry.wait())
    await generations.end()


async def _first(*ways: Awaitable[object]) -> None:
    """Waits for one of several things, and gives those up that it made itself to wait for."""
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        made = [task for task, way in zip(tasks, ways, strict=True) if task is not way]
        for task in made:
            task.cancel()
        await asyncio.gather(*made, return_exceptions=True)


class _Signals:
    """SIGTERM and SIGINT: the first one drains the server, the second one hurries, and the third one kills."""

    def __init__(self) -> None:
        """Listens from now on, on the running loop."""
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._note)

    def _note(self) -> None:
        if not self.first.is_set():
            self.first.set()
            return
        self.second.set()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
