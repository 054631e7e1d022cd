"""Makes vLLM's SamplingParams. All values are set, so that none depends on vLLM's defaults."""

from collections.abc import Iterable
from typing import Any

from doherty_engine._requests import EngineRequest
from doherty_engine.tokens import PreparedInput
from doherty_engine.vllm._library import Library

_MIN_TEMPERATURE = 0.01
"""vLLM replaces a lower temperature by this value, unless it is 0, and logs a warning each time. So we replace it."""
_SEEDS = 2**63
"""vLLM's GPU code stores seeds as signed 64-bit integers. A larger seed would end vLLM's process."""


def sampling_params(
    library: Library, request: EngineRequest, prepared: PreparedInput, stop_ids: Iterable[int], grammar: str | None
) -> Any:
    """The SamplingParams of a request.

    Args:
        library: vLLM.
        request: The request.
        prepared: The tokenized request.
        stop_ids: The tokens that end the answer.
        grammar: The constraint as a grammar for llguidance, if there is one.
    """
    sampling, stopping = request.sampling, request.stopping
    return library.SamplingParams(
        temperature=max(sampling.temperature, _MIN_TEMPERATURE) if sampling.temperature else 0.0,
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
        detokenize=False,  # ours is as fast as vLLM's, and knows exactly which token ids a text consists of
        output_kind=library.RequestOutputKind.DELTA,
        skip_clone=True,  # the object is used only for this request
    )
