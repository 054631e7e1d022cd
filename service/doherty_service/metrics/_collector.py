"""The Prometheus collector, which reads the recorder and the server's objects at each scrape."""

import math
from collections.abc import Callable, Iterable, Iterator

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

_SPANS = {
    "queue": ("doherty_queue_seconds", "Time that requests waited for a slot of the engine."),
    "preprocess": ("doherty_preprocess_seconds", "Time to apply the template and to tokenize."),
    "time_to_first_token": (
        "doherty_time_to_first_token_seconds",
        "Time from the receive time until the first token was delivered to the transport (TTFT).",
    ),
    "inter_token": (
        "doherty_inter_token_seconds",
        "Time between messages that carry tokens (ITL). The values of an answer are added when it ends.",
    ),
    "time_per_output_token": (
        "doherty_time_per_output_token_seconds",
        "Mean time between the tokens of an answer, one value per answer (TPOT).",
    ),
    "time_to_last_token": (
        "doherty_time_to_last_token_seconds",
        "Time from the receive time until the last token of a complete answer was delivered to the transport (TTLT).",
    ),
}
"""The exported spans of `RequestRecord.spans`, with the names and help texts of their metrics."""

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
"""The statuses with which calls end."""

_TOKENS = {
    TokenKind.PROMPT: "Prompt tokens as the model reads them, including those of the template.",
    TokenKind.OUTPUT: "Delivered tokens, including those of incomplete answers. They are added when the answer ends.",
    TokenKind.CACHED: "Input tokens that were still in the KV cache.",
}


class ServerCollector(Collector):
    """Reads the server's state at each scrape, so that metrics cost nothing while requests are served.

    It runs in the thread of the HTTP request, and reads copies: `dict()` copies without yielding to the event loop.
    """

    def __init__(  # noqa: PLR0913 - everything that it reads
        self,
        recorder: LatencyRecorder,
        generations: Generations,
        log: LogWriter,
        engine: str,
        *,
        count_connections: Callable[[], int],
        certificates: Certificates | None = None,
        keyring: Keyring | None = None,
    ) -> None:
        """`engine` is the name under which the engine is registered. `count_connections` must be thread-safe."""
        self._recorder = recorder
        self._generations = generations
        self._log = log
        self._engine = engine
        self._count_connections = count_connections
        self._certificates = certificates
        self._keyring = keyring

    def collect(self) -> Iterator[Metric]:
        """Yields all metrics, with zeros for every label value that is known in advance.

        Without the zeros, `rate` would ignore the first event of each series.
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
            "Ended calls by rpc, status and name of the API key.",
            ("rpc", "status", "key"),
            _with_all_statuses(dict(recorder.requests)).items(),
        )
        first_tokens = dict(recorder.first_tokens)
        yield _counter(
            "doherty_first_token_objective",
            "Requests that were owed a first token, by whether it came within 400 ms. Requests that were invalid or "
            "exceeded a limit of their key or of the transport are not counted.",
            ("met",),
            [((met,), first_tokens.get(met == "yes", 0)) for met in ("yes", "no")],
        )
        tokens = {(kind, ""): 0 for kind in TokenKind} | dict(recorder.tokens)
        for kind, text in _TOKENS.items():
            by_key = [((key,), count) for (counted_kind, key), count in tokens.items() if counted_kind is kind]
            yield _counter(f"doherty_{kind}_tokens", text, ("key",), by_key)
        yield _counter(
            "doherty_refusals",
            "Requests that were refused before the server did any work for them, by error reason.",
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
            "Restarts of the engine after it died or stalled.",
            (),
            [((), recorder.engine_restarts)],
        )

        yield _counter(
            "doherty_log_lines_dropped",
            "Log lines that were dropped because the log's reader was too slow or had exited, or the disk was full.",
            (),
            [((), self._log.dropped)],
        )

    def _histograms(self) -> Iterator[Metric]:
        recorder = self._recorder
        empty = Histogram()
        spans = {(span, rpc): empty for span in _SPANS for rpc in ANSWERING_RPCS} | dict(recorder.spans)
        for span, (name, text) in _SPANS.items():
            by_rpc = [((rpc,), histogram) for (span_name, rpc), histogram in spans.items() if span_name == span]
            yield _histogram(name, text, ("rpc",), by_rpc)
        yield _histogram(
            "doherty_request_duration_seconds",
            "Time from the receive time to the terminal status, by rpc and status.",
            ("rpc", "status"),
            ({(rpc, "OK"): empty for rpc in RPCS if rpc != OTHER_RPC} | dict(recorder.durations)).items(),
        )
        slot_frees = dict.fromkeys(AbortCause, empty) | dict(recorder.slot_frees)
        yield _histogram(
            "doherty_slot_free_seconds",
            "Time from an abort until the engine freed the slot, by cause of the abort.",
            ("cause",),
            [((cause.label if cause else "",), histogram) for cause, histogram in slot_frees.items()],
        )
        yield _histogram(
            "doherty_event_loop_lag_seconds",
            "Delay of a timer on the event loop, measured ten times per second.",
            (),
            [((), recorder.loop_lag)],
        )

    def _gauges(self) -> Iterator[Metric]:
        load = self._generations.load()
        yield GaugeMetricFamily("doherty_running_requests", "Requests that the engine is processing.", load.running)
        yield GaugeMetricFamily("doherty_queued_requests", "Requests that wait for a slot.", load.queued)
        yield GaugeMetricFamily(
            "doherty_queued_bytes", "Total size of the requests that wait for a slot.", load.queued_bytes
        )
        yield GaugeMetricFamily(
            "doherty_slots", "Maximum number of requests that the engine processes at the same time.", load.slots
        )
        model = self._model()
        use = GaugeMetricFamily(
            "doherty_kv_cache_use_ratio",
            "Used share of the KV cache, 0 to 1. Absent if the engine does not report it.",
        )
        if model is not None and (share := self._generations.kv_cache_use()) is not None:
            use.add_metric((), share)
        yield use
        yield GaugeMetricFamily("doherty_ready", "1 while requests are accepted, else 0.", self._generations.is_open)
        expiry = GaugeMetricFamily(
            "doherty_certificate_expiry_timestamp_seconds",
            "Expiry time of the certificate for new connections, in seconds since 1970. Absent without TLS.",
        )
        if self._certificates is not None:
            expiry.add_metric((), self._certificates.expires)
        yield expiry
        state = GaugeMetricFamily("doherty_state", "1 for the current state of the server, else 0.", labels=("state",))
        current_state = self._generations.state
        for label in State:
            state.add_metric((label,), label is current_state)
        yield state
        yield GaugeMetricFamily(
            "doherty_last_step_age_seconds",
            "Time since the engine's last step while requests run, else 0.",
            self._generations.step_age(),
        )
        yield GaugeMetricFamily("doherty_connections", "Open connections.", self._count_connections())
        build = GaugeMetricFamily(
            "doherty_build_info",
            "Always 1. The labels describe the server, and the model once it is loaded.",
            labels=("version", "engine", "engine_version", "model", "revision"),
        )
        model_labels = ("", "", "") if model is None else (model.engine_version, model.model, model.revision)
        build.add_metric((server_version(), self._engine, *model_labels), 1)
        yield build

    def _key_gauges(self) -> Iterator[Metric]:
        """Yields the gauges of each key. Without keys they have no samples; the server's gauges are enough then."""
        running = GaugeMetricFamily(
            RUNNING, "Requests that the engine is processing, by name of the API key.", labels=("key",)
        )
        queued = GaugeMetricFamily(QUEUED, "Requests that wait for a slot, by name of the API key.", labels=("key",))
        share = GaugeMetricFamily(
            SHARE,
            "Used share of a limit of an API key; 1 is the whole limit. Tokens can exceed 1. Limits per minute recover "
            "continuously.",
            labels=("key", "limit"),
        )
        if self._keyring is not None:
            load = self._generations.load_of_keys()
            for name in self._keyring.names:
                running_count, queued_count = load.get(name, (0, 0))
                running.add_metric((name,), running_count)
                queued.add_metric((name,), queued_count)
            for name, limit, used_share in self._keyring.use():
                share.add_metric((name, limit), used_share)
        yield from (running, queued, share)

    def _model(self) -> ModelInfo | None:
        try:
            return self._generations.model()
        except UnavailableError:
            return None


def _with_all_statuses(requests: dict[tuple[str, str, str], int]) -> dict[tuple[str, str, str], int]:
    """Adds zeros for all statuses: of each rpc without a key, and of each rpc and key that has been used."""
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
    """Serves metrics over HTTP in separate threads until the process ends.

    Raises:
        EngineSetupError: The server cannot listen on the address.
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
