"""Says to llama.cpp how to choose tokens, leaving nothing to its own defaults."""

from doherty_engine._requests import Sampling

_RANDOM_SEED = 0xFFFFFFFF
"""llama.cpp draws a seed of its own for this value."""

_SAMPLED = ["penalties", "temperature", "min_p", "top_k", "top_p"]
"""The temperature goes first, so that the cut-offs see the distribution that is sampled from, as in vLLM."""

_GREEDY = ["penalties", "top_k", "temperature"]
"""Cuts to one candidate: for the probability that tells a token's id llama.cpp sorts what is left, and to sort the
whole vocabulary takes a millisecond."""


def sampling_fields(sampling: Sampling, context_tokens: int) -> dict[str, object]:
    """The fields of a completion request."""
    is_greedy = sampling.is_greedy
    return {
        "samplers": _GREEDY if is_greedy else _SAMPLED,
        "temperature": 0.0 if is_greedy else sampling.temperature,
        "top_k": 1 if is_greedy else sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "repeat_penalty": sampling.repetition_penalty,
        "repeat_last_n": context_tokens,  # penalties look at all of the prompt and the answer
        "seed": sampling.seed % _RANDOM_SEED,  # llama.cpp has 32 bits for it
        "dynatemp_range": 0.0,
        "mirostat": 0,
        "min_keep": 0,
    }
