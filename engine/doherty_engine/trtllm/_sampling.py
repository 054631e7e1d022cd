"""Makes TensorRT-LLM's SamplingParams. All supported values are set, so that none depends on its defaults.

SamplingParams is a dataclass that checks only three of its fields, and its default of `max_tokens` is 32
(`sampling_params.py` at 1.2).
"""

from typing import Any

from doherty_engine._errors import UnsupportedError
from doherty_engine._requests import EngineRequest, Sampling
from doherty_engine.trtllm._knobs import TENSORRT, Knobs
from doherty_engine.trtllm._library import load


class SamplingWriter:
    """Makes the SamplingParams of requests for one configuration."""

    def __init__(self, knobs: Knobs, eos_ids: frozenset[int], lookahead_config: Any) -> None:
        self._class = load("tensorrt_llm").SamplingParams
        self._knobs = knobs
        self._lookahead_config = lookahead_config
        self.end_id = max(eos_ids, default=-1)
        """The end-of-sequence token for TensorRT-LLM; other end-of-sequence tokens are passed as stop tokens. The
        C++ samplers do not return this token, the PyTorch sampler does."""

    def write(self, request: EngineRequest, stop_ids: frozenset[int], max_tokens: int, guided_decoding: Any) -> Any:
        """Returns the parameters of a request that may generate `max_tokens` tokens and ends at any of `stop_ids`.

        Raises:
            UnsupportedError: The request wants sampling, but all answers are greedy.
        """
        fields: dict[str, Any] = {
            "end_id": self.end_id,
            "max_tokens": max_tokens,
            "stop_token_ids": sorted(stop_ids - {self.end_id}) or None,
            # Stop tokens count as output tokens, but TensorRT-LLM would remove them by default.
            "include_stop_str_in_output": True,
            "ignore_eos": request.stopping.ignore_eos,
            "detokenize": False,
            "add_special_tokens": False,
            "return_perf_metrics": True,
            **self._choice(request.sampling),
        }
        if request.top_logprobs is not None:
            fields["logprobs"] = max(1, request.top_logprobs)  # with 0 it would return none at all
        if guided_decoding is not None:
            fields["guided_decoding"] = guided_decoding
        if self._lookahead_config is not None:
            fields["lookahead_config"] = self._lookahead_config
        return self._class(**fields)

    def _choice(self, sampling: Sampling) -> dict[str, Any]:
        """The fields that determine how the next token is chosen."""
        if self._knobs.is_greedy_only:
            if not sampling.is_greedy:
                raise UnsupportedError(
                    "sampling.temperature",
                    "with speculative decoding this engine always takes the most probable token; leave it out, or "
                    "set it to 0",
                )
            return {"temperature": 0.0}
        fields: dict[str, Any] = {"temperature": 0.0} if sampling.is_greedy else self._draw(sampling)
        if self._knobs.backend == TENSORRT:
            fields |= _unless_off(sampling, frequency_penalty=0.0, presence_penalty=0.0, repetition_penalty=1.0)
        return fields

    def _draw(self, sampling: Sampling) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            **_unless_off(sampling, top_k=0),
        }
        if self._knobs.backend == TENSORRT:
            fields |= {"seed": sampling.seed, **_unless_off(sampling, min_p=0.0)}
        return fields


def _unless_off(sampling: Sampling, **off: float) -> dict[str, Any]:
    """The settings that differ from their value for "off"."""
    return {name: value for name, off_value in off.items() if (value := getattr(sampling, name)) != off_value}
