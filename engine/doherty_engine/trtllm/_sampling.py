"""Says to TensorRT-LLM how to choose tokens and when to end, leaving nothing to its own defaults.

Its SamplingParams is a dataclass that checks three of its fields, and whose `max_tokens` is 32 where it is not set
(`sampling_params.py` at 1.2): so every request says all that the configuration can honour.
"""

from typing import Any

from doherty_engine._errors import UnsupportedError
from doherty_engine._requests import EngineRequest, Sampling
from doherty_engine.trtllm._knobs import TENSORRT, Knobs
from doherty_engine.trtllm._library import load


class SamplingWriter:
    """Writes SamplingParams for one configuration."""

    def __init__(self, knobs: Knobs, eos_ids: frozenset[int], lookahead_config: Any) -> None:
        self._class = load("tensorrt_llm").SamplingParams
        self._knobs = knobs
        self._lookahead_config = lookahead_config
        self.end_id = max(eos_ids, default=-1)
        """The end-of-sequence token that TensorRT-LLM is told as such; the others are stop tokens to it. It may keep
        this one to itself: its C++ samplers end a sequence before it, the PyTorch one behind it."""

    def write(self, request: EngineRequest, stop_ids: frozenset[int], most: int, guided_decoding: Any) -> Any:
        """The parameters of a request that may generate `most` tokens and ends with any of `stop_ids`.

        Raises:
            UnsupportedError: it is to be sampled, where every answer is greedy.
        """
        fields: dict[str, Any] = {
            "end_id": self.end_id,
            "max_tokens": most,
            "stop_token_ids": sorted(stop_ids - {self.end_id}) or None,
            # Their ids are part of the answer's usage, and TensorRT-LLM would take them off.
            "include_stop_str_in_output": True,
            "ignore_eos": request.stopping.ignore_eos,
            "detokenize": False,
            "add_special_tokens": False,
            "return_perf_metrics": True,
            **self._choice(request.sampling),
        }
        if request.top_logprobs is not None:
            fields["logprobs"] = max(1, request.top_logprobs)  # for 0 it would return none at all
        if guided_decoding is not None:
            fields["guided_decoding"] = guided_decoding
        if self._lookahead_config is not None:
            fields["lookahead_config"] = self._lookahead_config
        return self._class(**fields)

    def _choice(self, sampling: Sampling) -> dict[str, Any]:
        """How the next token is chosen."""
        if self._knobs.is_greedy_only:
            if not sampling.is_greedy:
                raise UnsupportedError(
                    "sampling.temperature",
                    "with speculative decoding this engine always takes the most probable token; leave it out, or "
                    "say 0",
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
    """The settings that are not what they are when they do nothing."""
    return {name: value for name, nothing in off.items() if (value := getattr(sampling, name)) != nothing}
