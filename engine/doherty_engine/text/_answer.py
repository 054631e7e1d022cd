"""The text of one answer, from the tokens to what the caller may see."""

from collections.abc import Sequence

from doherty_engine._outputs import TokenLogprob
from doherty_engine.text._detokenizer import Utf8Detokenizer
from doherty_engine.text._pieces import Piece
from doherty_engine.text._stop import StopMatcher


class AnswerText:
    """Detokenizes one answer and looks for stop texts in it.

    For an engine that gets bare token ids and knows the bytes of each. First `prime` with the tokens of the prefix,
    if there is one, then `feed` with the new ones, and `end` once the answer ends otherwise than by a stop text.
    """

    def __init__(self, stop_texts: Sequence[str] = (), *, include_stop_text: bool = False) -> None:
        self._detokenizer = Utf8Detokenizer()
        self.matcher = StopMatcher(stop_texts, include_stop_text=include_stop_text)
        self._has_stops = bool(stop_texts)

    @property
    def matched(self) -> str | None:
        """The stop text that ended the answer; then nothing more may be fed."""
        return self.matcher.matched

    @property
    def is_within_code_point(self) -> bool:
        """Whether the tokens so far end in the middle of a code point."""
        return self._detokenizer.is_within_code_point

    def prime(self, token_id: int, token: bytes, *, may_end: bool = True) -> None:
        """Takes a token of the prefix; a stop text that is complete there ends the answer as well."""
        piece = self._detokenizer.feed(token_id, token)
        if piece is not None:
            self.matcher.prime(piece.text, may_end=may_end)

    def feed(
        self, token_id: int, token: bytes, logprob: TokenLogprob | None = None, *, may_end: bool = True
    ) -> list[Piece]:
        """Takes a generated token, and returns the pieces that are decided.

        Args:
            token_id: its id.
            token: its bytes; none for a special token.
            logprob: its log probability, if the caller wants those.
            may_end: whether a stop text that it completes ends the answer.
        """
        piece = self._detokenizer.feed(token_id, token, logprob)
        if piece is None:
            return []
        return self.matcher.feed(piece, may_end=may_end) if self._has_stops else [piece]

    def end(self) -> list[Piece]:
        """Returns all that is still held back."""
        rest = self._detokenizer.flush()
        pieces = [] if rest is None else self.matcher.feed(rest, may_end=False)
        return pieces + self.matcher.flush()
