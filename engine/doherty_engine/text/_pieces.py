"""A piece of an answer: some text with its tokens."""

from collections.abc import Sequence
from typing import NamedTuple

from doherty_engine._outputs import TokenLogprob


class Piece(NamedTuple):
    """Some text and the tokens that produced it; at least one token, except for the text of a prefix."""

    text: str
    token_count: int = 1
    token_ids: tuple[int, ...] | None = None
    """The ids of the tokens; None if they are not known exactly."""
    logprobs: tuple[TokenLogprob, ...] | None = None


def join(pieces: Sequence[Piece]) -> Piece:
    """Joins pieces. If the ids or log probabilities of one piece are unknown, those of the result are, too."""
    token_ids: list[int] = []
    logprobs: list[TokenLogprob] = []
    knows_ids = knows_logprobs = True
    for piece in pieces:
        if piece.token_ids is None:
            knows_ids = False
        else:
            token_ids += piece.token_ids
        if piece.logprobs is None:
            knows_logprobs = False
        else:
            logprobs += piece.logprobs
    return Piece(
        text="".join(piece.text for piece in pieces),
        token_count=sum(piece.token_count for piece in pieces),
        token_ids=tuple(token_ids) if knows_ids else None,
        logprobs=tuple(logprobs) if knows_logprobs else None,
    )
