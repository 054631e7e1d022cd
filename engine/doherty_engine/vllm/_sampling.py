"""Says to vLLM how to choose tokens and when to stop, leaving nothing to its own defaults."""

from collections.abc import Iterable
from typing import Any

from doherty_engine._requests import EngineRequest
from doherty_engine.tokens import PreparedInput
from doherty_engine.vllm._library import Library

_WARNED_TEMPERATURE = 0.01
"""vLLM raises a temperature between 0 and this one to it, with a warning each time."""
_SEEDS = 2**63
"""vLLM's GPU code keeps seeds in 64 bits with a sign, and one that is larger ends its process."""


def sampling_params(
    library: Library, request: EngineRequest, prepared: PreparedInput, stop_ids: Iterable[int], grammar: str | None
) -> Any:
    """The SamplingParams of a request.

    Args:
        library: vLLM.
        request: the request.
        prepared: how the model reads it.
        stop_ids: the tokens that end the answer.
        grammar: for llguidance; None leaves the form open.
    """
    sampling, stopping = request.sampling, request.stopping
    return library.SamplingParams(
        temperature=max(sampling.temperature, _WARNED_TEMPERATURE) if sampling.temperature else 0.0,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        frequency_penalty=sampling.frequency_penalty,
        presence_penalty=sampling.presence_penalty,
        repetition_penalty=sampling.repetition_penalty,
        seed=sampling.seed % _SEEDS,
        max_tokens=prepared.max_new_tokens,
        min_tokens=max(stopping.min_output_tokens - len(prepared.prefix_ids), 0),
        stop_token_ids=sorted(stop_ids),
        ignore_eos=stopping.ignore_eos,
        logprobs=request.top_logprobs,
        structured_outputs=None if grammar is None else library.StructuredOutputsParams(grammar=grammar),
        detokenize=False,  # ours costs no more, and is exact about which ids a text came from
        output_kind=library.RequestOutputKind.DELTA,
        skip_clone=True,  # it is this request's alone
    )
