"""How answers are read: each part leaves its marks on the call, and a caller that stops reading is found."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from doherty_engine import StepOutput
from doherty_service._answers import Answer
from doherty_service._errors import StalledReaderError
from doherty_service.admission import Slot
from doherty_service.latency import Call

_LOOKS = 4
"""How often the readers are looked at within the time that one may stall."""


class Reader:
    """One answer as its servicer reads it."""

    def __init__(self, answer: Answer, call: Call, slot: Slot | None = None) -> None:
        """Reads `answer`, for `call`; `slot` is told when its first token comes."""
        self._answer = answer
        self._call = call
        self._slot = slot
        self.writes_since: float | None = None
        """When the message that the transport has not taken yet was handed to it; its servicer sets it."""

    async def next(self) -> StepOutput:
        """Waits for the next part, which is the last one when it has `finish`.

        Raises:
            EngineError: the engine could not complete the answer.
            UnavailableError: the engine was lost, or the server is shut down.
            StalledReaderError: more is waiting to be read than any caller that reads leaves.
        """
        output = await self._answer.next()
        call = self._call
        if output.started is not None:
            call.mark_started(output.started.prompt_tokens, output.started.preprocess, output.started.queue)
        if output.token_count:
            call.mark_tokens(output.token_count)
            if self._slot is not None and self._slot.first_token is None:
                self._slot.first_token = call.first_token
        if output.finish is not None:
            call.mark_summary(output.finish.reason.value, output.finish.cached_tokens)
        return output


class Readers:
    """All who read, for the watchdog that finds those that have stopped.

    HTTP/2 and the sockets take some megabytes from the server before a write has to wait: a caller is known to have
    stalled when one has waited for long.
    """

    def __init__(self) -> None:
        """Nobody reads."""
        self._tasks: dict[Reader, asyncio.Task[object]] = {}
        self._stalled: set[Reader] = set()

    @contextmanager
    def watched(self, reader: Reader) -> Iterator[None]:
        """Ends the running task with an error while the block is open, if its reader stalls.

        Raises:
            StalledReaderError: it did.
        """
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("an answer is read by a task")
        self._tasks[reader] = task
        try:
            yield
        except BaseException:
            # gRPC raises one thing or another in a write that is broken off.
            if reader in self._stalled:
                task.uncancel()
                raise StalledReaderError from None
            raise
        finally:
            del self._tasks[reader]
            self._stalled.discard(reader)

    async def watch(self, timeout: float) -> None:  # noqa: ASYNC109 - of the readers, not of this
        """Ends those that have not taken a message for `timeout` seconds; runs until it is cancelled."""
        while True:
            await asyncio.sleep(timeout / _LOOKS)
            oldest = time.monotonic() - timeout
            for reader, task in self._tasks.items():
                if reader.writes_since is not None and reader.writes_since < oldest and reader not in self._stalled:
                    self._stalled.add(reader)
                    task.cancel()
