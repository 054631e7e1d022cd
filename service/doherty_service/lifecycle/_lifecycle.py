"""The life of the process: load, serve, drain, exit."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NoReturn

import uvloop

from doherty_engine import Engine, EngineSetupError, create_engine
from doherty_service.admission import QueueBounds
from doherty_service.gateway import check_door, run_door
from doherty_service.generation import Generations
from doherty_service.lifecycle._supervisor import STOP_SECONDS, EngineLostError, SupervisionSettings, Supervisor
from doherty_service.load import LoadMeter
from doherty_service.metrics import ServerCollector, serve_metrics
from doherty_service.process import describe, give_memory_back
from doherty_service.rpc import ReceiveWatch, Reporter
from doherty_service.settings import Settings
from doherty_service.telemetry import (
    LatencyRecorder,
    LogWriter,
    awake,
    log_error,
    log_event,
    set_up_logging,
)
from doherty_service.tracing import Tracing, start_tracing
from doherty_service.transport import (
    ConnectionGuard,
    HealthServicer,
    Port,
    ServerLoop,
    TransportLostError,
    available_transport,
    build_server,
    generation_servicer,
    measure_lag,
    read_certificates,
    read_keyring,
    room_for_connections,
    watch_port,
)

_SWITCH_INTERVAL = 0.0002
"""In seconds. If other threads run Python, as in the embedded engine, the default of 5 ms shows in the p99 latency."""

_COLLECTION_THRESHOLD = 10_000
"""A garbage collection starts after this many new objects. With Python's 700, dozens of calls that begin at once start
several, which take some milliseconds together, although the objects of a call are freed without any."""

_LEAVE_SECONDS = 2.0
"""How long the server waits for the last replies to be sent. A caller may not read them or close its side."""


def run(settings: Settings) -> NoReturn:
    """Serves until SIGTERM or SIGINT, drains, and ends the process.

    The exit code is 0 after a signal, and 1 if the engine or the transport is lost.

    Raises:
        EngineSetupError: The server cannot start. The message is one sentence that says what to do.
    """
    try:
        log = set_up_logging(settings.log_level)
        try:
            _run(settings, log)
        except Exception as error:
            if not isinstance(error, EngineSetupError):
                log_error("not_started", cause=error, error=describe(error))
            raise
        finally:
            log.flush()
    except EngineSetupError:
        raise
    except Exception as error:  # the system and libraries can raise anything
        raise EngineSetupError(f"The server cannot start: {describe(error)}.") from error


def _run(settings: Settings, log: LogWriter) -> NoReturn:
    sys.setswitchinterval(_SWITCH_INTERVAL)
    gc.set_threshold(_COLLECTION_THRESHOLD)
    options = dict(settings.engine_option)
    if settings.model:
        options["model"] = settings.model
    make_engine = partial(create_engine, settings.engine, options)
    make_engine()  # reports a wrong option before the server listens
    if settings.door != "none":
        check_door()
    settings = settings.model_copy(
        update={
            "max_connections": room_for_connections(settings.max_connections),
            "transport": available_transport(settings),
        }
    )
    tracing = start_tracing()
    try:
        needs_grpcio = settings.transport == "grpcio" or settings.door != "none"
        with asyncio.Runner(loop_factory=ServerLoop if needs_grpcio else uvloop.Loop) as runner:
            runner.run(_serve(settings, make_engine, tracing, log))
    finally:
        if tracing is not None:
            tracing.stop()
    raise AssertionError("_serve ends the process")


async def _serve(
    settings: Settings, make_engine: Callable[[], Engine], tracing: Tracing | None, log: LogWriter
) -> NoReturn:
    signals = _Signals()  # before the model is loaded, because that can take minutes
    recorder = LatencyRecorder(settings.latency_window)
    generations = Generations(
        recorder, QueueBounds(settings.max_queued_requests, settings.max_queued_bytes, settings.max_queue_wait)
    )
    load_meter = LoadMeter(generations, recorder)
    health_servicer = HealthServicer()
    reporter = Reporter(recorder, log.put, tracing)
    receive_watch = ReceiveWatch(settings.receive_timeout)
    guard = ConnectionGuard(settings.max_connections, settings.trusted_networks)
    certificates, keyring = read_certificates(settings), read_keyring(settings, recorder)
    servicer = generation_servicer(settings, generations, reporter, receive_watch)
    new_server, end_watch = build_server(
        settings, generations, servicer, recorder, health_servicer, reporter, receive_watch, guard, keyring, load_meter
    )
    port = Port(new_server, settings, certificates)
    if settings.metrics_listen:
        serve_metrics(
            settings.metrics_listen,
            ServerCollector(
                recorder,
                generations,
                log,
                settings.engine,
                count_connections=port.count_connections,
                certificates=certificates,
                keyring=keyring,
            ),
        )
    await port.start()

    async def on_serving(serving: bool) -> None:  # noqa: FBT001 - its only parameter
        health_servicer.set_serving(serving=serving)
        await port.set_ready(ready=serving)
        if serving:
            log_event("ready", address=port.address, model=generations.model().model)

    supervision = SupervisionSettings(settings.step_timeout, settings.canary_interval, settings.max_engine_failures)
    supervisor = Supervisor(make_engine, generations, recorder, supervision, on_serving)
    supervising = asyncio.ensure_future(supervisor.run())
    watches = [
        awake.run(),
        generations.writes.run(settings.stall_timeout),
        receive_watch.run(),
        end_watch.run(settings.stall_timeout),
        give_memory_back(),
        watch_port(port.address, lambda: port.is_open),
        guard.run(port.address),
        measure_lag(recorder.loop_lag.observe),
        *([load_meter.run()] if settings.load_reports != "off" else []),
        *([run_door(settings, generations, servicer, reporter, receive_watch)] if settings.door != "none" else []),
        *([certificates.watch_expiry()] if certificates is not None else []),
    ]
    watching = [asyncio.ensure_future(watch) for watch in watches]
    is_lost = False
    try:
        await _wait_for_first(supervising, *watching, signals.first.wait())
        for task in (supervising, *watching):
            if task.done():
                task.result()
        if generations.is_ready:
            await _drain(settings, generations, health_servicer, port, signals.second)
    except EngineSetupError:
        await port.stop(_LEAVE_SECONDS)
        reporter.flush()
        raise
    except Exception as error:  # noqa: BLE001 - once the server has started, any failure ends it with exit code 1
        is_lost = True
        await _give_up(error, generations)
    finally:
        supervising.cancel()
    health_servicer.end_watches()
    await _wait_for_first(port.replies_sent(_LEAVE_SECONDS), signals.second.wait())
    stopping = _stop_engine(supervising, supervisor)
    await _wait_for_first(stopping, asyncio.sleep(0 if is_lost else STOP_SECONDS), signals.second.wait())
    reporter.flush()
    log_event("stopped")
    _exit_process(tracing, log, int(is_lost))


async def _give_up(error: Exception, generations: Generations) -> None:
    """Logs why the server cannot continue, and ends all requests."""
    if isinstance(error, EngineLostError | TransportLostError):
        log_error("engine_lost" if isinstance(error, EngineLostError) else "transport_lost", reason=str(error))
    else:
        log_error("server_failed", cause=error, error=describe(error))
    generations.close()
    await generations.end()


async def _stop_engine(supervising: "asyncio.Future[None]", supervisor: Supervisor) -> None:
    """Stops the engine, but first waits for the supervisor to end, so that it does not start another one."""
    await asyncio.gather(supervising, return_exceptions=True)
    await supervisor.stop()


def _exit_process(tracing: Tracing | None, log: LogWriter, code: int) -> NoReturn:
    """Ends the process, which closes its port and connections.

    Until then the server refuses new calls with a status that says why. Stopping grpc.aio's server would end calls that
    arrive at that moment as CANCELLED, without details. An orderly interpreter shutdown would wait for the threads of
    an engine that hangs.
    """
    if tracing is not None:
        tracing.stop()
    log.flush()
    os._exit(code)


async def _drain(
    settings: Settings, generations: Generations, health_servicer: HealthServicer, port: Port, hurry: asyncio.Event
) -> None:
    """Reports NOT_SERVING, waits for `drain_delay`, then refuses new requests and lets those in flight finish."""
    health_servicer.withdraw()
    port.withdraw()
    if settings.drain_delay:
        log_event("withdrawn", requests=generations.in_flight, delay_seconds=settings.drain_delay)
        await _wait_for_first(asyncio.sleep(settings.drain_delay), hurry.wait())
    generations.close()
    port.retire()
    log_event("draining", requests=generations.in_flight, grace_seconds=settings.drain_grace)
    await _wait_for_first(generations.finished(), asyncio.sleep(settings.drain_grace), hurry.wait())
    await generations.end()


async def _wait_for_first(*awaitables: Awaitable[object]) -> None:
    """Waits until one of several awaitables is done. Then cancels the others, except those that already were tasks."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        own_tasks = [task for task, awaitable in zip(tasks, awaitables, strict=True) if task is not awaitable]
        for task in own_tasks:
            task.cancel()
        await asyncio.gather(*own_tasks, return_exceptions=True)


class _Signals:
    """Handles SIGTERM and SIGINT: the first drains the server, the second skips all waiting, the third kills."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        if not self.first.is_set():
            self.first.set()
            return
        self.second.set()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
