"""Keeps Ctrl-C out of gRPC's code."""

import signal
import threading
from collections.abc import Callable
from importlib import import_module
from types import FrameType, TracebackType
from typing import Final

# The functions behind those of `signal`, which convert numbers to enums and so take ten times as long.
_signal: Final = import_module("_signal")
_SIGINT: Final = int(signal.SIGINT)


class DeferredInterrupt:
    """Raises the KeyboardInterrupt of a Ctrl-C at the end of a `with` block instead of within it.

    gRPC's Python code does not expect an exception between any two of its instructions. If a Ctrl-C arrives just after
    it has taken a lock, for example, the lock stays locked: gRPC's thread waits for it forever, and so do all later
    calls on the channel.

    Only the main thread gets KeyboardInterrupt, and only from Python's own handler. It does nothing in other threads,
    or if the program has another handler.
    """

    def __init__(self, cancel: Callable[[], object] | None = None) -> None:
        """`cancel` ends the wait in the block. It is called in a thread, because the block may hold a lock it needs."""
        self._cancel = cancel
        self._is_installed = False
        self._is_interrupted = False

    def __enter__(self) -> None:
        if (
            threading.current_thread() is threading.main_thread()
            and _signal.getsignal(_SIGINT) is signal.default_int_handler
        ):
            _signal.signal(_SIGINT, self._defer)
            self._is_installed = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._is_installed:
            _signal.signal(_SIGINT, signal.default_int_handler)
        if self._is_interrupted:
            raise KeyboardInterrupt from None

    def _defer(self, _: int, __: FrameType | None) -> None:
        if self._is_interrupted:
            raise KeyboardInterrupt  # a second Ctrl-C: the block does not end
        self._is_interrupted = True
        if self._cancel is not None:
            threading.Thread(target=self._cancel, name="doherty-interrupt", daemon=True).start()
