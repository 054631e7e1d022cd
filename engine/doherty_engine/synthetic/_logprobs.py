"""The log probabilities of the synthetic engine."""

import math
from functools import cache

from doherty_engine import TokenLogprob
from doherty_engine.synthetic._tokenizer import TOKEN_NAME, VOCABULARY_SIZE

MAX_TOP_LOGPROBS = 20


@cache
def token_logprob(token_id: int, top: int) -> TokenLogprob:
    """The log probability of a token, which is always the most probable one, and of the `top` most probable tokens.

    The probabilities decrease by a constant factor that depends on the token; their sum is below 1.
    """
    factor = 0.1 + 0.05 * (token_id % 16)
    first = math.log(1 - factor)
    entries = []
    for rank in range(max(1, top)):
        other = (token_id + rank) % VOCABULARY_SIZE
        entries.append(TokenLogprob(other, TOKEN_NAME[other], first + rank * math.log(factor)))
    return TokenLogprob(token_id, TOKEN_NAME[token_id], first, tuple(entries[:top]))
