"""OpenTelemetry traces, if the standard OTEL_* variables enable them and opentelemetry is installed."""

from doherty_service.tracing._setup import Tracing, start_tracing

__all__ = ["Tracing", "start_tracing"]
