"""How answers are read: each part leaves its marks on the call, and a caller that stops reading is found."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from doherty_engine import StepOutput
from doherty_service._answers import Answer
from doherty_service._errors import StalledReaderError
from doherty_service.admission import Slot
from doherty_service.latency import Call

_LOOKS = 4
"""How often the readers are looked at within the time that one may stall."""


class Reader:
    """One answer as its servicer reads it: in one of the three ways `next`, `whole` and `listen` with `take`."""

    def __init__(self, answer: Answer, call: Call, slot: Slot | None = None) -> None:
        """Reads `answer`, for `call`; `slot` is told when its first token comes."""
        self._answer = answer
        self._call = call
        self._slot = slot
        self._arrival: asyncio.Future[None] | None = None

    async def next(self) -> StepOutput:
        """Waits for the next part, which is the last one when it has `finish`: all that is there, and never for more.

        Raises:
            EngineError: the engine could not complete the answer.
            UnavailableError: the engine was lost, or the server is shut down.
            StalledReaderError: more is waiting to be read than any caller that reads leaves.
        """
        while (output := self.take()) is None:
            if self._arrival is None:
                self._answer.listen(self._arrived)
            self._arrival = asyncio.get_running_loop().create_future()
            await self._arrival
        return output

    async def whole(self) -> StepOutput:
        """Waits for the end, and returns all of the answer as one part; its tokens are marked as they come.

        Raises:
            Exception: as `next`.
        """
        complete: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def note() -> None:
            output = self._answer.newest
            if output is not None:
                self._mark(output)
            if (output is None or output.finish is not None) and not complete.done():
                complete.set_result(None)

        self._answer.listen(note)
        await complete
        while (output := self._answer.take()) is not None and output.finish is None:
            pass  # what came before a failure, which is raised next
        if output is None:
            raise AssertionError("an answer ended with neither its end nor an error")
        return output

    def listen(self, wake: Callable[[], None]) -> None:
        """Has `wake` called whenever `take` has something to return or to raise."""
        self._answer.listen(wake)

    def take(self) -> StepOutput | None:
        """Returns what is there as one part, delivered to the transport now; None where there is nothing.

        Raises:
            Exception: as `next`.
        """
        output = self._answer.take()
        if output is not None:
            self._mark(output)
        return output

    def _mark(self, output: StepOutput) -> None:
        call = self._call
        if output.started is not None:
            call.mark_started(output.started.prompt_tokens, output.started.preprocess, output.started.queue)
        if output.token_count:
            call.mark_tokens(output.token_count)
            if self._slot is not None and self._slot.first_token is None:
                self._slot.first_token = call.first_token
        if output.finish is not None:
            finish = output.finish
            call.mark_summary(finish.reason.value, finish.cached_tokens, finish.engine_time_to_first_token)

    def _arrived(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)


@dataclass(slots=True, eq=False)
class Writes:
    """What a servicer writes to one caller, as the watchdog sees it."""

    since: float | None = None
    """When the message that the transport has not taken yet was handed to it; its servicer sets it."""


class Readers:
    """All who read, for the watchdog that finds those that have stopped.

    HTTP/2 and the sockets take some megabytes from the server before a write has to wait: a caller is known to have
    stalled when one has waited for long.
    """

    def __init__(self) -> None:
        """Nobody reads."""
        self._tasks: dict[Writes, asyncio.Task[object]] = {}
        self._stalled: set[Writes] = set()

    @contextmanager
    def watched(self) -> Iterator[Writes]:
        """Ends the running task with an error while the block is open, if what it writes is not read.

        Raises:
            StalledReaderError: it was not.
        """
        writes = Writes()
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("an answer is read by a task")
        self._tasks[writes] = task
        try:
            yield writes
        except BaseException:
            # gRPC raises one thing or another in a write that is broken off.
            if writes in self._stalled:
                task.uncancel()
                raise StalledReaderError from None
            raise
        finally:
            del self._tasks[writes]
            self._stalled.discard(writes)

    async def watch(self, timeout: float) -> None:  # noqa: ASYNC109 - of the readers, not of this
        """Ends those that have not taken a message for `timeout` seconds; runs until it is cancelled."""
        while True:
            await asyncio.sleep(timeout / _LOOKS)
            oldest = time.monotonic() - timeout
            for writes, task in self._tasks.items():
                if writes.since is not None and writes.since < oldest and writes not in self._stalled:
                    self._stalled.add(writes)
                    task.cancel()
