"""Errors that end all requests."""

from typing import Any


class EngineDeadError(Exception):
    """Raised when the engine's process has died."""

    def __init__(self, *args: Any, suppress_context: bool = False, **kwargs: Any) -> None:
        super().__init__(
            "EngineCore encountered an issue. See stack trace (above) for the root cause.", *args, **kwargs
        )
        self.__suppress_context__ = suppress_context
