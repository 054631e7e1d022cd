"""Tells callers that their requests were admitted, if their answers do not begin soon."""

import asyncio
import time
from collections import deque
from weakref import ref

from doherty_service.generation._answer import Answer

_SECONDS = 0.1
"""How long the engine may work on an answer in silence. Most answers begin sooner, which tells the same."""


class Silences:
    """The answers that were submitted lately. One timer serves them all, because the time is the same for each.

    The references are weak: grpc.aio keeps an RPC as long as something refers to it.
    """

    def __init__(self) -> None:
        self._answers: deque[tuple[float, ref[Answer]]] = deque()
        """When to look at each answer (`time.monotonic()`), in this order."""
        self._timer: asyncio.TimerHandle | None = None

    def add(self, answer: Answer) -> None:
        """Tells the caller soon, unless the answer begins or ends before."""
        self._answers.append((time.monotonic() + _SECONDS, ref(answer)))
        if self._timer is None:
            self._set_timer()

    def _set_timer(self) -> None:
        wait = max(0.0, self._answers[0][0] - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(wait, self._check)

    def _check(self) -> None:
        answers = self._answers
        try:
            while answers and answers[0][0] <= time.monotonic():
                answer = answers.popleft()[1]()
                if answer is not None and answer.is_silent:
                    self._break(answer)
        finally:
            self._timer = None
            if answers:
                self._set_timer()

    def _break(self, answer: Answer) -> None:
        if answer.handle is not None and not answer.handle.is_read:
            self.add(answer)  # the engine may still find that the request is invalid
        else:
            answer.tell_admission()
