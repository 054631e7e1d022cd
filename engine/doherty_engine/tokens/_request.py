"""The base class of requests. It makes sure that each request gets exactly one last output."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from doherty_engine._errors import (
    EngineError,
    EngineFailedError,
    OutOfResourcesError,
    first_line,
    is_shortage,
)
from doherty_engine._outputs import Finish, FinishReason, StepOutput, TokenLogprob
from doherty_engine._requests import Constraint, EngineRequest
from doherty_engine.constraints import check_combination
from doherty_engine.text import token_logprob
from doherty_engine.tokens._answer import TokenAnswer
from doherty_engine.tokens._reader import PreparedInput, PromptReader
from doherty_engine.tokens._tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineContext:
    """What all requests of an engine share. Each engine adds its own fields."""

    reader: PromptReader
    tokenizer: Tokenizer
    compile_constraint: Callable[[Constraint, str], Coroutine[Any, Any, Any]] | None
    """Compiles a constraint for the library. Its arguments are the constraint, and a text that differs for each API
    key, so that keys take turns. None if the engine does not compile constraints."""


ContextT = TypeVar("ContextT", bound=EngineContext)


class RequestOwner(Protocol):
    """What a request needs from its engine."""

    def emit(self, output: StepOutput) -> None:
        """Takes an output."""
        ...

    def emit_last(self, output: StepOutput) -> None:
        """Takes the last output of a request."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine as a task of the engine."""
        ...


class TokenRequest(ABC, Generic[ContextT]):
    """One request, and the handle to abort it.

    A subclass begins it in `_generate`, passes the tokens of each step to `_take`, and stops the library in `_drop`.
    """

    def __init__(self, request: EngineRequest, context: ContextT, owner: RequestOwner) -> None:
        self.key = request.key
        self.is_over = False
        """Whether its last output has been emitted."""
        self._request = request
        self._context = context
        self._owner = owner
        self._emit = owner.emit
        self._answer: TokenAnswer | None = None
        """None until the request has been tokenized."""
        self._compiling: asyncio.Task[Any] | None = None
        """The compilation of the constraint, which waits for the turn of the API key."""
        self._timer: asyncio.TimerHandle | None = None

    @abstractmethod
    async def _generate(self, answer: TokenAnswer, prepared: PreparedInput, guide: Any) -> None:
        """Makes the library generate. May return before the answer is complete.

        Args:
            answer: The answer. It has not ended in the prefix.
            prepared: The tokenized request.
            guide: The result of `EngineContext.compile_constraint`; None without a constraint.
        """

    @abstractmethod
    def _drop(self) -> None:
        """Makes the library stop working on the request, which has ended."""

    @property
    def is_read(self) -> bool:
        """Whether it was read, and nothing is wrong with it."""
        return self._answer is not None

    def abort(self) -> None:
        """Ends the request. Its next output is the last one."""
        self.end(FinishReason.ABORTED)

    def end(self, reason: FinishReason) -> None:
        """Ends the request at once, unless it has ended. If the answer ended in the prefix, that reason is reported."""
        if self.is_over:
            return
        if self._answer is None:
            self._close(StepOutput(self.key, finish=Finish(reason)))
        else:
            self._close(self._answer.end(reason))

    def fail(self, error: EngineError) -> None:
        """Ends the request with an error, unless it has ended."""
        if not self.is_over:
            self._close(StepOutput(self.key, error=error))

    async def run(self) -> None:
        """Tokenizes the request and begins to generate. Every exception ends the request."""
        try:
            await self._begin()
        except EngineError as error:
            self.fail(error)
        except Exception as error:  # noqa: BLE001  without a last output, the caller would wait forever
            failure = self._explain(error)
            failure.__cause__ = error
            self.fail(failure)

    async def _begin(self) -> None:
        request, context = self._request, self._context
        self._check()
        prepared = await context.reader.read(request)
        guide = None
        if request.constraint is not None and context.compile_constraint is not None and not self.is_over:
            compiling = context.compile_constraint(request.constraint, request.cache_salt)
            self._compiling = asyncio.get_running_loop().create_task(compiling)
            guide = await self._compiling  # `_close` cancels it, and then this task, too
        if self.is_over:
            return
        answer = self._answer = TokenAnswer(request, prepared, context.tokenizer)
        ends_at = request.stopping.ends_at
        seconds = None if ends_at is None else ends_at - time.monotonic()
        if answer.finish is not None or (seconds is not None and seconds <= 0):
            self.end(FinishReason.TIME_LIMIT)
            return
        if seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._run_out_of_time)
        await self._generate(answer, prepared, guide)

    def _check(self) -> None:
        """Refuses requests that the library would answer wrongly without an error.

        Raises:
            UnsupportedError: The request has a combination of fields that this engine does not support.
        """
        check_combination(self._request)

    def _explain(self, error: Exception) -> EngineError:
        """Converts an exception to an EngineError."""
        kind = OutOfResourcesError if is_shortage(error) else EngineFailedError
        return kind(f"{type(error).__name__}: {first_line(error)}")

    def _take(
        self,
        token_ids: Sequence[int],
        logprobs: Sequence[TokenLogprob | None] | None = None,
        *,
        ended: FinishReason | None = None,
    ) -> None:
        """Passes the tokens of a step to `TokenAnswer.take`, and emits its output."""
        if self._answer is None:
            raise AssertionError("the library generates only after the answer was created")
        output = self._answer.take(token_ids, logprobs, ended=ended)
        if output is not None:
            if output.finish is None:
                self._emit(output)
            else:
                self._close(output)

    def _logprobs(
        self, token_ids: Sequence[int], positions: Sequence[Mapping[int, float]] | None
    ) -> list[TokenLogprob | None] | None:
        """The log probabilities of tokens, if the request wants them.

        Args:
            token_ids: The tokens.
            positions: For each token, the log probabilities of itself and of the most probable tokens, by id.
        """
        top = self._request.top_logprobs
        if top is None or positions is None:
            return None
        pieces = self._context.tokenizer.pieces
        return [
            token_logprob(token, logprobs, top, pieces) for token, logprobs in zip(token_ids, positions, strict=True)
        ]

    def _run_out_of_time(self) -> None:
        self.end(FinishReason.TIME_LIMIT)

    def _add_counts(self, finish: Finish) -> Finish:
        """Returns the finish with what the library reports about the answer, such as cached tokens."""
        return finish

    def _close(self, last: StepOutput) -> None:
        self.is_over = True
        if self._compiling is not None:
            self._compiling.cancel()
        if self._timer is not None:
            self._timer.cancel()
        if last.finish is not None and (counted := self._add_counts(last.finish)) is not last.finish:
            last = last._replace(finish=counted)
        self._owner.emit_last(last)
        self._drop()
