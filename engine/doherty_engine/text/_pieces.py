"""A piece of an answer on its way from the tokens to the caller."""

from collections.abc import Sequence
from typing import NamedTuple

from doherty_engine._outputs import TokenLogprob


class Piece(NamedTuple):
    """Some text and the tokens that it came from; never less than one token, unless the text is a prefix's."""

    text: str
    token_count: int = 1
    token_ids: tuple[int, ...] | None = None
    """The ids of the tokens; None where they are not exactly known."""
    logprobs: tuple[TokenLogprob, ...] | None = None


def join(pieces: Sequence[Piece]) -> Piece:
    """One piece out of several: what is unknown for one of them is unknown for all."""
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
