"""One request of the synthetic engine, step by step."""

from doherty_engine import (
    EngineFailedError,
    EngineRequest,
    Finish,
    FinishReason,
    InvalidInputError,
    Speculation,
    StepOutput,
)
from doherty_engine.synthetic._logprobs import token_logprob
from doherty_engine.synthetic._options import Options
from doherty_engine.synthetic._plan import Plan
from doherty_engine.synthetic._vocabulary import END_OF_SEQUENCE, TOKEN_TEXT
from doherty_engine.text import AnswerText, Piece, join


class Run:
    """A request that is being worked on."""

    def __init__(self, request: EngineRequest, plan: Plan, now: float, options: Options) -> None:
        """Begins its prefill now.

        Raises:
            InvalidInputError: the held part ends within a code point.
        """
        self.key = request.key
        self._stopping = request.stopping
        self._wants_ids = request.token_ids
        self._top_logprobs = request.top_logprobs
        self._stop_ids = frozenset(request.stopping.stop_token_ids)
        self._started = plan.started
        self._is_started = False
        self._ready_at = now + plan.prefill
        self._answer = plan.answer
        self._max_tokens = plan.max_tokens
        self._ends_with_eos = plan.ends_with_eos
        self._tokens_per_step = options.tokens_per_step
        self._fail_after = options.fail_after_tokens
        self._held_count = self._count = len(plan.held_ids)
        self._steps = 0
        self._text = AnswerText(request.stopping.stop_texts, include_stop_text=request.stopping.include_stop_text)
        self._finish = self._resume(plan.held_ids)

    def step(self, now: float) -> StepOutput | None:
        """Takes part in a step; returns nothing when there is nothing to tell."""
        ends_at = self._stopping.ends_at
        if self._finish is not None:
            return self._output([])
        if ends_at is not None and now >= ends_at:
            self._finish = self._end(FinishReason.TIME_LIMIT)
            return self._output(self._text.end())
        if now < self._ready_at:
            return None if self._is_started else self._output([])
        most = self._tokens_per_step
        if self._fail_after:
            most = min(most, self._fail_after - self._generated)
            if most <= 0:
                return self.fail(f"told to fail after {self._fail_after} tokens of an answer")
        return self._generate(most)

    def abort(self) -> StepOutput:
        """Ends it without any more text."""
        self._finish = self._end(FinishReason.ABORTED)
        return self._output([])

    def fail(self, why: str) -> StepOutput:
        """Ends it with an error."""
        return StepOutput(self.key, error=EngineFailedError(why))

    @property
    def _generated(self) -> int:
        return self._count - self._held_count

    def _resume(self, held_ids: list[int]) -> Finish | None:
        """Takes in the held part; tells how the answer ended if it did so in there."""
        for count, token_id in enumerate(held_ids, start=1):
            may_end = count >= self._stopping.min_output_tokens
            if self._is_stop(token_id, may_end=may_end):
                return self._end(FinishReason.STOP, stop_token_id=token_id)
            self._text.prime(token_id, TOKEN_TEXT[token_id], may_end=may_end)
            if self._text.matched is not None:
                return self._end(FinishReason.STOP, stop_text=self._text.matched)
        if self._count >= self._max_tokens:
            return self._end(FinishReason.LENGTH)
        if self._text.is_within_code_point:
            raise InvalidInputError("continue_from.token_ids", "they end within a code point")
        return None

    def _generate(self, most: int) -> StepOutput | None:
        """Generates the tokens of one step; returns nothing while they decide on no text."""
        self._steps += 1
        pieces: list[Piece] = []
        for _ in range(most):
            pieces += self._next_token()
            if self._finish is not None:
                break
        return self._output(pieces) if pieces or self._finish or not self._is_started else None

    def _next_token(self) -> list[Piece]:
        text = self._text
        token_id = self._answer.token(self._count)
        self._count += 1
        logprob = None if self._top_logprobs is None else token_logprob(token_id, self._top_logprobs)
        may_end = self._count >= self._stopping.min_output_tokens
        if self._is_stop(token_id, may_end=may_end):
            self._finish = self._end(FinishReason.STOP, stop_token_id=token_id)
            return text.feed(token_id, b"", logprob) + text.end()
        pieces = text.feed(token_id, TOKEN_TEXT[token_id], logprob, may_end=may_end)
        if text.matched is not None:
            self._finish = self._end(FinishReason.STOP, stop_text=text.matched)
        elif self._count >= self._max_tokens:
            self._finish = self._end(FinishReason.LENGTH)
            pieces += text.end()
        return pieces

    def _is_stop(self, token_id: int, *, may_end: bool) -> bool:
        if token_id == END_OF_SEQUENCE and self._ends_with_eos:
            return True
        return may_end and token_id in self._stop_ids

    def _end(self, reason: FinishReason, *, stop_text: str | None = None, stop_token_id: int | None = None) -> Finish:
        speculation = None
        if self._tokens_per_step > 1:
            # Of every step one token is the model's own; the others were drafted.
            drafted = self._steps * (self._tokens_per_step - 1)
            speculation = Speculation(self._steps, drafted, self._generated - self._steps)
        return Finish(reason, stop_text, stop_token_id, self._count, speculation=speculation)

    def _output(self, pieces: list[Piece]) -> StepOutput:
        piece = pieces[0] if len(pieces) == 1 else join(pieces)
        started = None if self._is_started else self._started
        self._is_started = True
        return StepOutput(
            self.key,
            piece.text,
            piece.token_count,
            piece.token_ids if self._wants_ids else None,
            None if self._top_logprobs is None else piece.logprobs,
            started,
            self._finish,
        )
