"""From the start of the process to its end: load, serve, drain."""

import asyncio
import signal
import sys
import time

import uvloop
from grpc_health.v1 import health

from doherty_engine import Engine, create_engine
from doherty_service._generations import Generations
from doherty_service._log import log_event, set_up_logging
from doherty_service._server import bind, build_server, set_health
from doherty_service._settings import Settings
from doherty_service.latency import LatencyRecorder

_SWITCH_INTERVAL = 0.0002
"""Seconds. Where another thread runs Python, as the embedded engine's do, the default of 5 ms shows as p99 latency."""

_LAST_WORDS = 0.5
"""Seconds that replies already made have to leave, and open health watches to end."""


def run(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT, and returns once what was in flight has ended.

    Raises:
        EngineSetupError: the server cannot start; the message is one sentence that says what to do.
    """
    set_up_logging(settings.log_level)
    sys.setswitchinterval(_SWITCH_INTERVAL)
    options = dict(settings.engine_option)
    if settings.model:
        options["model"] = settings.model
    engine = create_engine(settings.engine, options)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, engine))


async def _serve(settings: Settings, engine: Engine) -> None:
    stopping = asyncio.Event()
    # Before the model is loaded, which can take minutes.
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    recorder = LatencyRecorder(settings.latency_window)
    generations = Generations(
        engine, max_queued=settings.max_queued_requests, max_queued_bytes=settings.max_queued_bytes
    )
    health_servicer = health.aio.HealthServicer()
    await set_health(health_servicer, serving=False)
    server = build_server(settings, generations, recorder, health_servicer)
    address = bind(server, settings)
    await server.start()
    log_event("listening", address=address, engine=settings.engine)
    try:
        if await _started(generations, stopping):
            await set_health(health_servicer, serving=True)
            log_event("ready", address=address, model=generations.model().model)
            await stopping.wait()
            await _drain(settings, generations, health_servicer)
    finally:
        await server.stop(_LAST_WORDS)
        await engine.stop()
    log_event("stopped")


async def _started(generations: Generations, stopping: asyncio.Event) -> bool:
    """Starts the engine; false when a signal came first."""
    begun = time.monotonic()
    starting = asyncio.ensure_future(generations.start())
    signalled = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait((starting, signalled), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return False
        starting.result()
    finally:
        signalled.cancel()
        starting.cancel()
        await asyncio.gather(starting, signalled, return_exceptions=True)
    log_event("loaded", seconds=round(time.monotonic() - begun, 3))
    return True


async def _drain(settings: Settings, generations: Generations, health_servicer: health.aio.HealthServicer) -> None:
    log_event("draining", requests=generations.in_flight, grace_seconds=settings.drain_grace)
    await health_servicer.enter_graceful_shutdown()
    await generations.drain(settings.drain_grace)
