"""Log probabilities, as far as an engine's arithmetic gives any."""

import math
from collections.abc import Mapping


def known_logprobs(found: Mapping[int, float | None]) -> dict[int, float] | None:
    """The log probabilities of tokens, by id; None where one is not known.

    A model whose logits overflow gives NaN, which is null in JSON: the probability is unknown, and 0 would say that the
    token is certain.
    """
    known: dict[int, float] = {}
    for token_id, logprob in found.items():
        if logprob is None or math.isnan(logprob) or logprob == math.inf:
            return None
        known[token_id] = min(0.0, logprob)  # rounding can put the logarithm of a certainty above zero
    return known
