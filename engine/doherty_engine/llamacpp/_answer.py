"""Turns llama.cpp's chunks into the outputs of one answer, and decides when and why the answer ends."""

import time

from doherty_engine._errors import EngineFailedError
from doherty_engine._outputs import Finish, FinishReason, StepOutput
from doherty_engine._requests import EngineRequest
from doherty_engine.constraints import CompiledConstraint
from doherty_engine.llamacpp._chunks import Chunk, read_logprob
from doherty_engine.llamacpp._reader import PrefixTokens
from doherty_engine.llamacpp._vocabulary import Vocabulary
from doherty_engine.text import Piece, StopMatcher, join


class LlamaCppAnswer:
    """The state of one answer while it is generated."""

    def __init__(
        self,
        request: EngineRequest,
        vocabulary: Vocabulary,
        prefix: PrefixTokens,
        budget: int,
        constraint: CompiledConstraint | None,
    ) -> None:
        """`budget` is the maximum number of output tokens, including those of the prefix."""
        self._request = request
        self._stopping = request.stopping
        self._vocabulary = vocabulary
        self._prefix = prefix
        self._budget = budget
        self._constraint = constraint
        self._matcher = StopMatcher(request.stopping.stop_texts, include_stop_text=request.stopping.include_stop_text)
        self._matcher.prime(prefix.text)
        self._ready: list[Piece] = []
        self._generated = 0
        self._cached: int | None = None
        self._last_id: int | None = None
        self._finish: Finish | None = None

    def end_if_prefix_is_complete(self) -> bool:
        """Ends the answer if the prefix is already the whole answer; returns whether it is."""
        last_id = self._prefix.ids[-1] if self._prefix.ids else None
        ends = () if self._stopping.ignore_eos else self._vocabulary.end_ids
        if last_id is not None and (last_id in self._stopping.stop_token_ids or last_id in ends):
            self._end(FinishReason.STOP, stop_token_id=last_id)
        elif self._matcher.matched is not None:
            self._end(FinishReason.STOP, stop_text=self._matcher.matched)
        elif self.left <= 0:
            self._end(FinishReason.LENGTH)
        return self._finish is not None

    @property
    def left(self) -> int:
        """The number of tokens that may be generated; the prefix is already subtracted."""
        return self._budget - len(self._prefix.ids)

    @property
    def generated(self) -> int:
        """The number of tokens that llama.cpp has generated."""
        return self._generated

    def take(self, chunk: Chunk) -> StepOutput | None:
        """Takes the next chunk; returns an output if there is text to send before the final output."""
        count = chunk.generated_tokens - self._generated
        self._generated = chunk.generated_tokens
        if self._cached is None:  # later, llama.cpp counts the earlier pieces of the same prompt
            self._cached = chunk.cached_tokens
        if chunk.text or count > 0:
            self._take_piece(chunk, count)
        if self._finish is None:
            self._end_if_due(chunk)
        # Wait for the next chunk after a token without text, which may be the end-of-sequence token, and after the
        # last token of the budget. The end of the answer follows immediately, and is sent together with that token.
        if self._finish is not None or not chunk.text or self._generated >= self.left:
            return None
        return self._output(self._take_ready()) if self._ready else None

    @property
    def ended(self) -> bool:
        """Whether the answer has ended; `take` must not be called any more."""
        return self._finish is not None

    def abort(self) -> StepOutput:
        """Ends the answer as aborted, and returns the final output."""
        self._end(FinishReason.ABORTED)
        return StepOutput(self._request.key, finish=self._finish)

    def final_output(self) -> StepOutput:
        """Returns the final output, with all text that was held back.

        Raises:
            EngineFailedError: llama.cpp stopped before the answer ended.
        """
        if self._finish is None:
            raise EngineFailedError("llama.cpp ended an answer without giving a reason")
        if self._matcher.matched is None:
            self._ready += self._matcher.flush()
        return self._output(self._take_ready(), self._finish)

    def end_at_time_limit(self) -> None:
        """Ends the answer because its time limit has passed."""
        self._end(FinishReason.TIME_LIMIT)

    def _take_piece(self, chunk: Chunk, count: int) -> None:
        piece = self._piece(chunk, count)
        if self._constraint is not None:
            self._constraint.advance(piece.text)
        stop_id = chunk.token_id if chunk.token_id in self._stopping.stop_token_ids else None
        if stop_id is not None:
            piece = Piece("", piece.token_count, piece.token_ids, piece.logprobs)
        self._ready += self._matcher.feed(piece)
        self._last_id = chunk.token_id
        if stop_id is not None:
            self._end(FinishReason.STOP, stop_token_id=stop_id)
        elif self._matcher.matched is not None:
            self._end(FinishReason.STOP, stop_text=self._matcher.matched)

    def _piece(self, chunk: Chunk, count: int) -> Piece:
        wanted = self._request.top_logprobs
        ids = logprobs = None
        if chunk.token is not None:
            if self._request.token_ids:
                ids = self._vocabulary.recover(chunk.text, count, chunk.token["id"])
            if wanted is not None and count == 1:
                logprob = read_logprob(chunk.token, wanted, self._vocabulary)
                logprobs = None if logprob is None else (logprob,)
        return Piece(chunk.text, count, ids, logprobs)

    def _end_if_due(self, chunk: Chunk) -> None:
        if chunk.finish_reason == "length":
            self._end(FinishReason.LENGTH)
        elif chunk.finish_reason is not None:
            if self._constraint is not None:
                self._constraint.check_end()
            self._end(FinishReason.STOP, stop_token_id=self._last_id)
        elif self._stopping.ends_at is not None and time.monotonic() >= self._stopping.ends_at:
            self.end_at_time_limit()

    def _end(self, reason: FinishReason, *, stop_text: str | None = None, stop_token_id: int | None = None) -> None:
        self._finish = Finish(
            reason,
            stop_text=stop_text,
            stop_token_id=stop_token_id,
            output_tokens=len(self._prefix.ids) + self._generated,
            cached_tokens=self._cached,
        )

    def _take_ready(self) -> Piece:
        pieces, self._ready = self._ready, []
        return join(pieces)

    def _output(self, piece: Piece, finish: Finish | None = None) -> StepOutput:
        return StepOutput(
            self._request.key,
            text=piece.text,
            token_count=piece.token_count,
            token_ids=piece.token_ids if self._request.token_ids else None,
            logprobs=piece.logprobs if self._request.top_logprobs is not None else None,
            finish=finish,
        )
