"""Turns the tokens of an answer into text, and decides when and why the answer ends."""

from collections.abc import Sequence

from doherty_engine._errors import InvalidInputError
from doherty_engine._outputs import Finish, FinishReason, Started, StepOutput, TokenLogprob
from doherty_engine._requests import EngineRequest
from doherty_engine.text import AnswerText, Piece, join
from doherty_engine.tokens._reader import PreparedInput
from doherty_engine.tokens._tokenizer import TokenTable


class TokenAnswer:
    """The state of one answer.

    It decides when the answer ends: at an end-of-sequence or stop token, a stop text, or its budget. The engine passes
    the tokens of each step to `take`, and stops generating once `finish` is set. If the prefix is already a complete
    answer, `finish` is set from the beginning, and `end` returns the only output.
    """

    def __init__(self, request: EngineRequest, prepared: PreparedInput, table: TokenTable) -> None:
        """Processes the prefix.

        Raises:
            InvalidInputError: It ends within a code point.
        """
        self.finish: Finish | None = None
        """How the answer ended; None before."""
        self.queue = 0.0
        """Seconds that the request waited within the engine; reported with the first output."""
        self._key = request.key
        self._wants_ids = request.token_ids
        self._wants_logprobs = request.top_logprobs is not None
        self._has_constraint = request.constraint is not None
        self._min_tokens = request.stopping.min_output_tokens
        self._prepared = prepared
        self._budget = prepared.budget
        self._pieces = table.pieces
        # An answer that fulfils its constraint must be able to end.
        ignores_eos = request.stopping.ignore_eos and request.constraint is None
        self._eos_ids = frozenset[int]() if ignores_eos else table.eos_ids
        stop_ids = request.stopping.stop_token_ids
        self.stop_ids = self._eos_ids.union(stop_ids) if stop_ids else self._eos_ids
        """All tokens that end the answer, including end-of-sequence tokens. The engine may stop there, too."""
        self._text = AnswerText(request.stopping.stop_texts, include_stop_text=request.stopping.include_stop_text)
        self._detokenizer = self._text.detokenizer
        self._is_plain = not request.stopping.stop_texts and request.top_logprobs is None
        """Whether each token of whole code points is an output of its own."""
        self._count = 0
        self._is_started = False
        self._resume(prepared.prefix_ids)

    def take(
        self,
        token_ids: Sequence[int],
        logprobs: Sequence[TokenLogprob | None] | None = None,
        *,
        ended: FinishReason | None = None,
    ) -> StepOutput | None:
        """Processes the tokens of a step. Returns the output that they complete, if any.

        Args:
            token_ids: The new tokens. Tokens after the end of the answer are dropped.
            logprobs: Their log probabilities if the request wants them; an entry is None if it is unknown.
            ended: The reason if the engine ends the answer after these tokens. An earlier end takes precedence.
        """
        if self._is_plain and ended is None and len(token_ids) == 1:
            output = self._take_plain(token_ids[0])
            if output is not None:
                return output
        text, token_bytes, stop_ids = self._text, self._pieces, self.stop_ids
        pieces: list[Piece] = []
        logprob = None
        for index, token_id in enumerate(token_ids):
            if logprobs is not None:
                logprob = logprobs[index]
            self._count = count = self._count + 1
            may_end = count >= self._min_tokens
            if token_id in stop_ids and self._ends(token_id, may_end=may_end):
                self._end(FinishReason.STOP, stop_token_id=token_id)
                return self._output(pieces + text.feed(token_id, b"", logprob) + text.end())
            # A model may have more token ids than its tokenizer, because matrices are padded to a round size.
            token = token_bytes[token_id] if token_id < len(token_bytes) else b""
            pieces += text.feed(token_id, token, logprob, may_end=may_end)
            if text.matcher.matched is not None:
                self._end(FinishReason.STOP, stop_text=text.matcher.matched)
                return self._output(pieces)
            if count >= self._budget:
                self._end(FinishReason.LENGTH)
                return self._output(pieces + text.end())
        if ended is not None:
            self._end(ended)
            return self._output(pieces + self._text.end())
        return self._output(pieces) if pieces else None

    def _take_plain(self, token_id: int) -> StepOutput | None:
        """Processes a token in fewer steps than `take`.

        Returns None if that is not possible: the token may end the answer, or is not whole ASCII characters.
        """
        count = self._count + 1
        if count >= self._budget or token_id in self.stop_ids or token_id >= len(self._pieces):
            return None
        token = self._pieces[token_id]
        if self._detokenizer.rest or not token.isascii():
            return None
        self._count = count
        return StepOutput(
            self._key,
            token.decode(),
            1,
            (token_id,) if self._wants_ids else None,
            None,
            None if self._is_started else self._start(),
        )

    def begin(self) -> StepOutput:
        """Returns the first output of an answer that has no tokens yet. It only contains `started`."""
        return self._output([])

    def end(self, reason: FinishReason) -> StepOutput:
        """Ends the answer, unless it has ended in the prefix, and returns the last output.

        The output contains all text that was held back, unless the reason is FinishReason.ABORTED.
        """
        if self.finish is not None:
            return self._output([])
        self._end(reason)
        return self._output([] if reason is FinishReason.ABORTED else self._text.end())

    def _resume(self, prefix_ids: Sequence[int]) -> None:
        for token_id in prefix_ids:
            self._count += 1
            may_end = self._count >= self._min_tokens
            if token_id in self.stop_ids and self._ends(token_id, may_end=may_end):
                return self._end(FinishReason.STOP, stop_token_id=token_id)
            token = self._pieces[token_id] if token_id < len(self._pieces) else b""
            self._text.prime(token_id, token, may_end=may_end)
            if self._text.matched is not None:
                return self._end(FinishReason.STOP, stop_text=self._text.matched)
        if self._count >= self._budget:
            return self._end(FinishReason.LENGTH)
        if self._detokenizer.rest:
            raise InvalidInputError("continue_from.token_ids", "they end within a code point")
        return None

    def _ends(self, token_id: int, *, may_end: bool) -> bool:
        # An answer that fulfils its constraint may end before its minimum, because it cannot be continued.
        return may_end or (token_id in self._eos_ids and self._has_constraint)

    def _end(self, reason: FinishReason, *, stop_text: str | None = None, stop_token_id: int | None = None) -> None:
        self.finish = Finish(reason, stop_text, stop_token_id, self._count)

    def _output(self, pieces: Sequence[Piece]) -> StepOutput:
        piece = pieces[0] if len(pieces) == 1 else join(pieces)
        started = None if self._is_started else self._start()
        return StepOutput(
            self._key,
            piece.text,
            piece.token_count,
            piece.token_ids if self._wants_ids else None,
            piece.logprobs if self._wants_logprobs else None,
            started,
            self.finish,
        )

    def _start(self) -> Started:
        """The first output contains this."""
        self._is_started = True
        return Started(len(self._prepared.prompt_ids), self._prepared.preprocess, self.queue)
