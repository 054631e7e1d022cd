"""Converts the bytes of tokens to text, in whole code points."""

from codecs import utf_8_decode

from doherty_engine._outputs import TokenLogprob
from doherty_engine.text._pieces import Piece


class Utf8Detokenizer:
    """Converts tokens to pieces, each of which has some text and the tokens that produced it.

    A token that ends inside a code point is held back, with all of its text, until a later token completes the code
    point. Bytes that are not valid UTF-8 become U+FFFD.
    """

    def __init__(self) -> None:
        self.rest = b""
        """The bytes at the end that are not a whole code point."""
        self._text = ""
        self._ids: list[int] = []
        self._logprobs: list[TokenLogprob] = []

    def feed(self, token_id: int, token: bytes, logprob: TokenLogprob | None = None) -> Piece | None:
        """Adds the next token and its bytes; returns None if the text ends inside a code point.

        A piece has log probabilities if all of its tokens have one.
        """
        data = self.rest + token
        text, used = utf_8_decode(data, "replace", False)  # noqa: FBT003 - the C function takes no keywords
        self.rest = data[used:]
        if not self.rest and not self._ids:
            return Piece(text, 1, (token_id,), None if logprob is None else (logprob,))
        self._text += text
        self._ids.append(token_id)
        if logprob is not None:
            self._logprobs.append(logprob)
        return None if self.rest else self._take()

    def flush(self) -> Piece | None:
        """Returns what is still held back at the end of the answer, without the incomplete code point."""
        if not self._ids:
            return None
        self.rest = b""
        return self._take()

    def _take(self) -> Piece:
        logprobs = tuple(self._logprobs) if len(self._logprobs) == len(self._ids) else None
        piece = Piece(self._text, len(self._ids), tuple(self._ids), logprobs)
        self._text = ""
        self._ids = []
        self._logprobs = []
        return piece
