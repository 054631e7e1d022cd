"""The Prometheus endpoint: what the recorder and the live objects know, read when somebody asks for it."""

import math
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from doherty_engine import EngineSetupError, ModelInfo
from doherty_service._errors import UnavailableError
from doherty_service._version import server_version
from doherty_service.generation import Generations, State
from doherty_service.metrics._drafts import draft_metrics
from doherty_service.metrics._http import start_http
from doherty_service.metrics._key_use import QUEUED, RUNNING, SHARE
from doherty_service.security import Certificates, Keyring
from doherty_service.telemetry import (
    ANSWERING_RPCS,
    OTHER_RPC,
    REFUSALS,
    RPCS,
    AbortCause,
    Histogram,
    LatencyRecorder,
    LogWriter,
    TokenKind,
    log_event,
)
from doherty_service.transport import count_connections

_SPANS = {
    "queue": ("doherty_queue_seconds", "The wait for a slot of the engine."),
    "preprocess": ("doherty_preprocess_seconds", "Template and tokenizing."),
    "time_to_first_token": (
        "doherty_time_to_first_token_seconds",
        "From the receive time to the first token's delivery to the transport (TTFT).",
    ),
    "inter_token": (
        "doherty_inter_token_seconds",
        "The gap between messages that carry tokens (ITL); those of an answer are added at its end.",
    ),
    "time_per_output_token": (
        "doherty_time_per_output_token_seconds",
        "The mean time from one token to the next, one value an answer (TPOT).",
    ),
    "time_to_last_token": (
        "doherty_time_to_last_token_seconds",
        "From the receive time to the last token's delivery to the transport, of complete answers (TTLT).",
    ),
}
"""The names of `RequestRecord.spans` that are told, with those of their metrics."""

_STATUSES = (
    "OK",
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "INTERNAL",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "UNAUTHENTICATED",
    "UNAVAILABLE",
    "UNIMPLEMENTED",
)
"""Those that calls end with."""

_TOKENS = {
    TokenKind.PROMPT: "Tokens of prompts as the model reads them, template included.",
    TokenKind.OUTPUT: "Tokens delivered, also of answers that were not completed; those of an answer count at its end.",
    TokenKind.CACHED: "Tokens that the model had to read and that were still in the KV cache.",
}


class ServerCollector(Collector):
    """Reads the server's state when Prometheus asks: nothing is done for it while requests are served.

    It runs in the thread of the HTTP request, so it reads copies: `dict()` makes one without letting the event loop in.
    """

    def __init__(  # noqa: PLR0913 - all that it reads from
        self,
        recorder: LatencyRecorder,
        generations: Generations,
        log: LogWriter,
        engine: str,
        *,
        certificates: Certificates | None = None,
        keyring: Keyring | None = None,
    ) -> None:
        """`engine` is the name under which the engine is registered."""
        self._recorder = recorder
        self._generations = generations
        self._log = log
        self._engine = engine
        self._certificates = certificates
        self._keyring = keyring

    def describe(self) -> Iterable[Metric]:
        """Nothing: the names are not those of another collector."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All metrics, with every label value that is known beforehand.

        `rate` does not see a series come into being: its first refusal would not count.
        """
        yield from self._counters()
        yield from self._histograms()
        yield from self._gauges()
        yield from self._key_gauges()
        yield from draft_metrics(self._generations.drafting())

    def _counters(self) -> Iterator[Metric]:
        recorder = self._recorder
        yield _counter(
            "doherty_requests",
            "Calls that have ended, by rpc, status and name of the API key.",
            ("rpc", "status", "key"),
            _with_all_statuses(dict(recorder.requests)).items(),
        )
        first_tokens = dict(recorder.first_tokens)
        yield _counter(
            "doherty_first_token_objective",
            "Requests that were owed a first token, by whether it came within 400 ms: "
            "not those that the caller got wrong, or that were beyond a limit of their key.",
            ("met",),
            [((met,), first_tokens.get(met == "yes", 0)) for met in ("yes", "no")],
        )
        tokens = {(kind, ""): 0 for kind in TokenKind} | dict(recorder.tokens)
        for kind, text in _TOKENS.items():
            by_key = [((key,), count) for (one, key), count in tokens.items() if one is kind]
            yield _counter(f"doherty_{kind}_tokens", text, ("key",), by_key)
        yield _counter(
            "doherty_refusals",
            "Requests that were refused before any work was done for them, by the reason that the caller was told.",
            ("reason",),
            [((reason,), count) for reason, count in (dict.fromkeys(REFUSALS, 0) | dict(recorder.refusals)).items()],
        )
        aborts = dict.fromkeys(AbortCause, 0) | dict(recorder.aborts)
        yield _counter(
            "doherty_aborts",
            "Requests that ended before their answer was complete, by cause.",
            ("cause",),
            [((cause.label,), count) for cause, count in aborts.items()],
        )
        yield _counter(
            "doherty_engine_restarts",
            "How often the engine was restarted, because it had died or stalled.",
            (),
            [((), recorder.engine_restarts)],
        )

        yield _counter(
            "doherty_log_lines_dropped",
            "Lines of the log that were not written because its reader was too slow or gone, or the disk was full.",
            (),
            [((), self._log.dropped)],
        )

    def _histograms(self) -> Iterator[Metric]:
        recorder = self._recorder
        empty = Histogram()
        spans = {(span, rpc): empty for span in _SPANS for rpc in ANSWERING_RPCS} | dict(recorder.spans)
        for span, (name, text) in _SPANS.items():
            by_rpc = [((rpc,), histogram) for (one, rpc), histogram in spans.items() if one == span]
            yield _histogram(name, text, ("rpc",), by_rpc)
        yield _histogram(
            "doherty_request_duration_seconds",
            "From the receive time to the terminal status, by rpc and status.",
            ("rpc", "status"),
            ({(rpc, "OK"): empty for rpc in RPCS if rpc != OTHER_RPC} | dict(recorder.durations)).items(),
        )
        slot_frees = dict.fromkeys(AbortCause, empty) | dict(recorder.slot_frees)
        yield _histogram(
            "doherty_slot_free_seconds",
            "From an abort to the moment at which the engine's slot was free, by the cause of the abort.",
            ("cause",),
            [((cause.label if cause else "",), one) for cause, one in slot_frees.items()],
        )
        yield _histogram(
            "doherty_event_loop_lag_seconds",
            "How late a timer of the event loop was, measured ten times a second.",
            (),
            [((), recorder.loop_lag)],
        )

    def _gauges(self) -> Iterator[Metric]:
        load = self._generations.load()
        yield GaugeMetricFamily("doherty_running_requests", "Requests that the engine works on.", load.running)
        yield GaugeMetricFamily("doherty_queued_requests", "Requests that wait for a slot.", load.queued)
        yield GaugeMetricFamily("doherty_queued_bytes", "The size of the requests that wait.", load.queued_bytes)
        yield GaugeMetricFamily("doherty_slots", "Requests that the engine can work on at the same time.", load.slots)
        model = self._model()
        use = GaugeMetricFamily(
            "doherty_kv_cache_use_ratio", "The share of the KV cache in use, 0 to 1; absent where the engine is silent."
        )
        if model is not None and (share := self._generations.kv_cache_use()) is not None:
            use.add_metric((), share)
        yield use
        yield GaugeMetricFamily("doherty_ready", "1 while requests are taken in, else 0.", self._generations.is_open)
        expiry = GaugeMetricFamily(
            "doherty_certificate_expiry_timestamp_seconds",
            "When the certificate that new connections get expires, in seconds since 1970; absent without TLS.",
        )
        if self._certificates is not None:
            expiry.add_metric((), self._certificates.expires)
        yield expiry
        state = GaugeMetricFamily("doherty_state", "1 for what the server is doing, else 0.", labels=("state",))
        now = self._generations.state
        for one in State:
            state.add_metric((one,), one is now)
        yield state
        yield GaugeMetricFamily(
            "doherty_last_step_age_seconds",
            "The time since the engine's last step while requests run, else 0.",
            self._generations.step_age(),
        )
        yield GaugeMetricFamily("doherty_connections", "Open connections.", count_connections())
        build = GaugeMetricFamily(
            "doherty_build_info",
            "Always 1: what runs here. The model is told once it is loaded.",
            labels=("version", "engine", "engine_version", "model", "revision"),
        )
        told = ("", "", "") if model is None else (model.engine_version, model.model, model.revision)
        build.add_metric((server_version(), self._engine, *told), 1)
        yield build

    def _key_gauges(self) -> Iterator[Metric]:
        """Of keys alone: without any, the gauges of the whole server tell the same."""
        running = GaugeMetricFamily(
            RUNNING, "Requests that the engine works on, by name of the API key.", labels=("key",)
        )
        queued = GaugeMetricFamily(QUEUED, "Requests that wait for a slot, by name of the API key.", labels=("key",))
        share = GaugeMetricFamily(
            SHARE,
            "How much of a limit of an API key is in use, 1 for all of it; of tokens it can be more. A minute's limits "
            "are forgiven evenly.",
            labels=("key", "limit"),
        )
        if self._keyring is not None:
            load = self._generations.load_of_keys()
            for name in self._keyring.names:
                runs, waits = load.get(name, (0, 0))
                running.add_metric((name,), runs)
                queued.add_metric((name,), waits)
            for name, limit, used in self._keyring.use():
                share.add_metric((name, limit), used)
        yield from (running, queued, share)

    def _model(self) -> ModelInfo | None:
        try:
            return self._generations.model()
        except UnavailableError:
            return None


def _with_all_statuses(requests: dict[tuple[str, str, str], int]) -> dict[tuple[str, str, str], int]:
    """Counts by rpc, status and key, with zeros: for every rpc without a key, and for each that a key has called."""
    called = {(rpc, key) for rpc, _, key in requests}.union((rpc, "") for rpc in RPCS)
    return {(rpc, status, key): 0 for rpc, key in sorted(called) for status in _STATUSES} | requests


def _counter(name: str, text: str, labels: tuple[str, ...], counts: Iterable[tuple[tuple[str, ...], int]]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, count in counts:
        family.add_metric(values, count)
    return family


def _histogram(
    name: str, text: str, labels: tuple[str, ...], histograms: Iterable[tuple[tuple[str, ...], Histogram]]
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, histogram in histograms:
        buckets = [
            ("+Inf" if math.isinf(bound) else str(bound), float(count)) for bound, count in histogram.cumulative()
        ]
        family.add_metric(values, buckets, histogram.sum)
    return family


def serve_metrics(listen: str, collector: Collector) -> None:
    """Serves metrics over HTTP, in threads of their own, until the process ends.

    Raises:
        EngineSetupError: the address cannot be had.
    """
    host, _, port = listen.rpartition(":")
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    try:
        bound = start_http(host.strip("[]"), int(port), make_wsgi_app(registry))
    except OSError as error:
        raise EngineSetupError(f"Cannot serve metrics on {listen}: {error.strerror}.") from error
    log_event("metrics", address=f"{host}:{bound}")
