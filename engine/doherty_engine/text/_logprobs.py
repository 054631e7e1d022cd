"""Log probabilities, as far as an engine's arithmetic gives any."""

import math
from collections.abc import Mapping, Sequence

from doherty_engine._outputs import TokenLogprob


def known_logprobs(logprobs: Mapping[int, float | None]) -> dict[int, float] | None:
    """The log probabilities of tokens, by id; None where one is not known.

    A model whose logits overflow gives NaN, which is null in JSON: the probability is unknown, and 0 would say that the
    token is certain.
    """
    known: dict[int, float] = {}
    for token_id, logprob in logprobs.items():
        if logprob is None or math.isnan(logprob) or logprob == math.inf:
            return None
        known[token_id] = min(0.0, logprob)  # rounding can put the logarithm of a certainty above zero
    return known


def token_logprob(token_id: int, place: Mapping[int, float], most: int, pieces: Sequence[bytes]) -> TokenLogprob | None:
    """The log probability of a token, and of the `most` most probable ones at its place; None if one is not known.

    Args:
        token_id: The token.
        place: The log probabilities at its place, by id; its own is among them.
        most: How many others are wanted.
        pieces: The bytes of each token, by id.
    """
    known = known_logprobs(place if most else {token_id: place[token_id]})
    if known is None:
        return None

    def named(token_id: int, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
        # A model may have more tokens than its tokenizer: they fill its matrices up to a round number.
        piece = pieces[token_id] if token_id < len(pieces) else b""
        return TokenLogprob(token_id, piece, known[token_id], top)

    best = sorted(known, key=known.__getitem__, reverse=True)[:most]
    return named(token_id, tuple(map(named, best)))
