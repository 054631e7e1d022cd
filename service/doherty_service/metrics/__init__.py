"""The server's Prometheus metrics, their HTTP endpoint, and the reader that `doherty keys list` uses."""

from doherty_service.metrics._collector import ServerCollector, serve_metrics
from doherty_service.metrics._http import start_http
from doherty_service.metrics._key_use import KeyUse, UseUnknownError, read_key_use

__all__ = ["KeyUse", "ServerCollector", "UseUnknownError", "read_key_use", "serve_metrics", "start_http"]
