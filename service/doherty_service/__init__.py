"""The gRPC server: `run(Settings(...))` serves an engine until it is told to stop."""

from doherty_service._lifecycle import run
from doherty_service._settings import Settings

__all__ = ["Settings", "run"]
