"""Starts the exporters that the standard OTEL_* variables name."""

import logging
import os
import threading
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from doherty_extras import install_command
from doherty_service._version import server_version
from doherty_service.telemetry import log_event

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
_FLUSH_SECONDS = 3.0
"""How long the server waits at its end for the last spans to be exported."""

_log = logging.getLogger("doherty.server")


class Tracing:
    """Creates spans and exports them."""

    def __init__(self, provider: "TracerProvider") -> None:
        from doherty_service.tracing._spans import Spans  # noqa: PLC0415 - opentelemetry is optional

        self._provider = provider
        spans = Spans(provider.get_tracer("doherty", server_version()))
        self.begin = spans.begin
        self.end = spans.end

    def stop(self) -> None:
        """Exports the remaining spans, but gives up after a few seconds."""
        stopping = threading.Thread(target=self._provider.shutdown, daemon=True)
        stopping.start()
        stopping.join(_FLUSH_SECONDS)


def start_tracing() -> Tracing | None:
    """Starts to export traces. Returns None if no exporter is configured, or if that fails, which is logged.

    A failure does not stop the server, because a platform may set OTEL_* for every process that it runs.
    """
    names = exporter_names(os.environ)
    if not names:
        return None
    try:
        provider = _provider(names)
    except (ImportError, LookupError, ValueError) as error:
        _log.warning("traces_off", extra={"fields": {"exporters": names, "error": str(error)}})
        return None
    log_event("traces", exporters=names)
    return Tracing(provider)


def exporter_names(variables: Mapping[str, str]) -> list[str]:
    """Returns the exporters that the variables name, as names of opentelemetry's entry points."""
    if variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    exporters = variables.get("OTEL_TRACES_EXPORTER") or ("otlp" if any(map(variables.get, endpoints)) else "none")
    protocol = variables.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or variables.get("OTEL_EXPORTER_OTLP_PROTOCOL") or ""
    otlp = "otlp_proto_http" if protocol.startswith("http") else "otlp_proto_grpc"
    names = [name.strip() for name in exporters.split(",")]
    return [otlp if name == "otlp" else name for name in names if name and name != "none"]


def _provider(names: list[str]) -> "TracerProvider":
    """Creates a provider that exports batches from separate threads.

    Raises:
        ImportError: opentelemetry is not installed.
        LookupError: An exporter is not installed.
        ValueError: A variable has a value that opentelemetry cannot read.
    """
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource  # noqa: PLC0415 - optional
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    exporters = [_exporter(name)() for name in names]
    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "doherty"}))
    if SERVICE_VERSION not in resource.attributes:
        resource = resource.merge(Resource({SERVICE_VERSION: server_version()}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _exporter(name: str) -> Any:
    exporters = tuple(entry_points(group="opentelemetry_traces_exporter", name=name))
    if not exporters:
        raise LookupError(f"opentelemetry's exporter {name!r} is not installed; run `{install_command('otel')}`")
    return exporters[0].load()
