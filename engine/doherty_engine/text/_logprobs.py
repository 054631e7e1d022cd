"""Converts an engine's log probabilities, which may be missing or NaN."""

import math
from collections.abc import Mapping, Sequence

from doherty_engine._outputs import TokenLogprob


def known_logprobs(logprobs: Mapping[int, float | None]) -> dict[int, float] | None:
    """Checks log probabilities of tokens, by id; returns None if one is unknown.

    A model whose logits overflow produces NaN, which is null in JSON. Then the probability is unknown; replacing it
    by 0 would mean that the token is certain.
    """
    known: dict[int, float] = {}
    for token_id, logprob in logprobs.items():
        if logprob is None or math.isnan(logprob) or logprob == math.inf:
            return None
        known[token_id] = min(0.0, logprob)  # rounding can make the logarithm of 1 positive
    return known


def token_logprob(
    token_id: int, place: Mapping[int, float], max_top: int, pieces: Sequence[bytes]
) -> TokenLogprob | None:
    """The log probability of a token and of the most probable alternatives; None if one of them is unknown.

    Args:
        token_id: The token.
        place: The log probabilities at its position, by token id, including its own.
        max_top: The maximum number of alternatives.
        pieces: The bytes of each token, by id.
    """
    known = known_logprobs(place if max_top else {token_id: place[token_id]})
    if known is None:
        return None

    def named(token_id: int, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
        # A model may have more tokens than its tokenizer, because matrices are padded to a round size.
        piece = pieces[token_id] if token_id < len(pieces) else b""
        return TokenLogprob(token_id, piece, known[token_id], top)

    best = sorted(known, key=known.__getitem__, reverse=True)[:max_top]
    return named(token_id, tuple(map(named, best)))
