"""Keeps Ctrl-C out of gRPC's code."""

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from time import monotonic
from types import FrameType, TracebackType
from typing import Final, Self

# The functions behind those of `signal`, which convert numbers to enums and so take ten times as long.
_signal: Final = import_module("_signal")
_SIGINT: Final = int(signal.SIGINT)

_PATIENCE_SECONDS: Final = 1.0
"""How long the end of a block may take after a Ctrl-C. Later, another Ctrl-C interrupts the block."""


def can_be_interrupted() -> bool:
    """Whether a Ctrl-C raises KeyboardInterrupt in this thread, from Python's own handler."""
    return (
        threading.current_thread() is threading.main_thread()
        and _signal.getsignal(_SIGINT) is signal.default_int_handler
    )


class DeferredInterrupt:
    """Raises the KeyboardInterrupt of a Ctrl-C at the end of a `with` block instead of within it.

    gRPC's Python code does not expect an exception between any two of its instructions. If a Ctrl-C arrives just after
    it has taken a lock, for example, the lock stays locked: gRPC's thread waits for it forever, and so do all later
    calls on the channel that this thread serves.

    Only the main thread gets KeyboardInterrupt, and only from Python's own handler. In other threads, or if the program
    has another handler in Python, the block runs as usual. A handler that a C library has installed is lost.
    """

    def __init__(self, cancel: Callable[[], object] | None = None) -> None:
        """`cancel` ends the wait in the block. It is called in a thread, because the block may hold a lock it needs."""
        self._cancel = cancel
        self._is_leaving = False
        self._interrupted_at: float | None = None

    def __enter__(self) -> Self:
        if can_be_interrupted():
            with suppress(ValueError):  # in a program with several interpreters, this may not be the main thread
                _signal.signal(_SIGINT, self._defer)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_leaving = True
        if _signal.getsignal(_SIGINT) == self._defer:
            _signal.signal(_SIGINT, signal.default_int_handler)
        if self._interrupted_at is not None:
            raise KeyboardInterrupt from None

    def cancel_with(self, cancel: Callable[[], object] | None) -> None:
        """Sets the function that ends the wait in the rest of the block; calls it now if a Ctrl-C has already arrived.

        Call this only where the block holds none of the locks that the function needs.
        """
        self._cancel = cancel
        if cancel is not None and self._interrupted_at is not None:
            cancel()

    def _defer(self, _: int, __: FrameType | None) -> None:
        if self._interrupted_at is None:
            self._interrupted_at = monotonic()
            if self._cancel is not None:
                with suppress(RuntimeError):  # no thread can be started: another Ctrl-C ends the block
                    threading.Thread(target=self._cancel, name="doherty-interrupt", daemon=True).start()
        elif not self._is_leaving and monotonic() - self._interrupted_at > _PATIENCE_SECONDS:
            raise KeyboardInterrupt


def _restore_handler() -> None:
    """Restores the handler in a process that was forked by another thread, because there is no block to leave."""
    if isinstance(getattr(_signal.getsignal(_SIGINT), "__self__", None), DeferredInterrupt):
        _signal.signal(_SIGINT, signal.default_int_handler)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_restore_handler)
