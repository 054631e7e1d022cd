"""Writes llama.cpp's sampling parameters. Every parameter is set, so that llama.cpp's defaults never apply."""

from doherty_engine._requests import Sampling

_RANDOM_SEED = 0xFFFFFFFF
"""For this value llama.cpp draws a random seed."""

_SAMPLED = ["penalties", "temperature", "min_p", "top_k", "top_p"]
"""Temperature comes before min_p, top_k and top_p, so that these apply to the final distribution, as in vLLM."""

_GREEDY = ["penalties", "top_k", "temperature"]
"""top_k=1 leaves one candidate. llama.cpp reports a token's id only with its probability, for which it sorts all
candidates; sorting the whole vocabulary takes a millisecond."""


def sampling_fields(sampling: Sampling, context_tokens: int) -> dict[str, object]:
    """The sampling fields of a completion request."""
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
        "repeat_last_n": context_tokens,  # penalties cover the whole prompt and answer
        "seed": sampling.seed % _RANDOM_SEED,  # llama.cpp's seed has 32 bits
        "dynatemp_range": 0.0,
        "mirostat": 0,
        "min_keep": 0,
    }
