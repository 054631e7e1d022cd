"""Reads the standard variables OTEL_*, and starts what they ask for."""

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
"""How long the last spans may take to leave when the server ends."""

_log = logging.getLogger("doherty.server")


class Tracing:
    """Traces that are being exported."""

    def __init__(self, provider: "TracerProvider") -> None:
        """Spans go to `provider`."""
        from doherty_service.tracing._spans import Spans  # noqa: PLC0415 - opentelemetry is optional

        self._provider = provider
        spans = Spans(provider.get_tracer("doherty", server_version()))
        self.begin = spans.begin
        self.end = spans.end

    def stop(self) -> None:
        """Sends what is left, for as long as that may take."""
        stopping = threading.Thread(target=self._provider.shutdown, daemon=True)
        stopping.start()
        stopping.join(_FLUSH_SECONDS)


def start_tracing() -> Tracing | None:
    """Starts to export traces; None where nobody asked for them, or where they cannot be had, which is logged.

    A platform may set OTEL_* for all that it runs, so a server that cannot comply serves all the same.
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
    """The exporters that the variables ask for, by the names of opentelemetry's entry points."""
    if variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    asked = variables.get("OTEL_TRACES_EXPORTER") or ("otlp" if any(map(variables.get, endpoints)) else "none")
    protocol = variables.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or variables.get("OTEL_EXPORTER_OTLP_PROTOCOL") or ""
    otlp = "otlp_proto_http" if protocol.startswith("http") else "otlp_proto_grpc"
    names = [name.strip() for name in asked.split(",")]
    return [otlp if name == "otlp" else name for name in names if name and name != "none"]


def _provider(names: list[str]) -> "TracerProvider":
    """A provider whose batches leave from threads of their own.

    Raises:
        ImportError: opentelemetry is not installed.
        LookupError: an exporter is not installed.
        ValueError: a variable has a value that opentelemetry cannot read.
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
    found = tuple(entry_points(group="opentelemetry_traces_exporter", name=name))
    if not found:
        raise LookupError(f"no exporter {name!r} of opentelemetry is installed; run `{install_command('otel')}`")
    return found[0].load()
