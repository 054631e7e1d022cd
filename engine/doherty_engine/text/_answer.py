"""Converts the tokens of one answer to the text that the caller gets."""

from collections.abc import Sequence

from doherty_engine._outputs import TokenLogprob
from doherty_engine.text._detokenizer import Utf8Detokenizer
from doherty_engine.text._pieces import Piece
from doherty_engine.text._stop import StopMatcher


class AnswerText:
    """Detokenizes one answer and searches it for stop texts.

    It is meant for engines that generate token ids and know the bytes of each token. Call `prime` with each token of
    the prefix, then `feed` with each generated token, and `end` when the answer ends, unless a stop text ended it.
    """

    def __init__(self, stop_texts: Sequence[str] = (), *, include_stop_text: bool = False) -> None:
        self.detokenizer = Utf8Detokenizer()
        self.matcher = StopMatcher(stop_texts, include_stop_text=include_stop_text)
        self._has_stops = bool(stop_texts)

    @property
    def matched(self) -> str | None:
        """The stop text that ended the answer; once it is set, `feed` must not be called."""
        return self.matcher.matched

    def prime(self, token_id: int, token: bytes, *, may_end: bool = True) -> None:
        """Adds a token of the prefix. A stop text that is completed in the prefix ends the answer, too."""
        piece = self.detokenizer.feed(token_id, token)
        if piece is not None:
            self.matcher.prime(piece.text, may_end=may_end)

    def feed(
        self, token_id: int, token: bytes, logprob: TokenLogprob | None = None, *, may_end: bool = True
    ) -> list[Piece]:
        """Adds a generated token; returns the pieces that cannot be part of a stop text any more.

        Args:
            token_id: The id of the token.
            token: Its bytes; empty for a special token.
            logprob: Its log probability, if the caller asked for it.
            may_end: Whether a stop text that this token completes ends the answer.
        """
        piece = self.detokenizer.feed(token_id, token, logprob)
        if piece is None:
            return []
        return self.matcher.feed(piece, may_end=may_end) if self._has_stops else [piece]

    def end(self) -> list[Piece]:
        """Returns all pieces that are still held back."""
        rest = self.detokenizer.flush()
        pieces = [] if rest is None else self.matcher.feed(rest, may_end=False)
        return pieces + self.matcher.flush()
