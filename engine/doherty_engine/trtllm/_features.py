"""The supported fields of GenerateRequest, by backend and configuration.

These fields are not supported, for reasons in TensorRT-LLM 1.2.1:

* `stopping.min_output_tokens`: `min_tokens` suppresses only one end-of-sequence token, but Llama 3 has two.
* Penalties and `sampling.seed` on the PyTorch backend: its sampler accepts and ignores them (NVIDIA's pull requests
  16485 and 17172, both after 1.2). `sampling.min_p`: its sampler of 1.2 is not known to support it.
* All sampling settings with speculation: every answer is greedy (`Knobs.is_greedy_only`), so only temperature 0 is
  allowed.
* `output.top_logprobs` on the backend tensorrt without `gather_generation_logits`: refused by `_check_arguments` of
  `llmapi/llm.py`; with speculation: "outputLogProbs are not supported" (`lookaheadDecodingLayer.cpp`).
* Constraints without a `guided_decoding_backend`, and with lookahead.
"""

from dataclasses import fields, replace

from doherty_engine._engine import ModelInfo, SamplingDefaults
from doherty_engine.tokens import common_features
from doherty_engine.trtllm._context import TrtLlmContext
from doherty_engine.trtllm._knobs import TENSORRT, Knobs

_MAX_TOP_LOGPROBS = 20
"""The maximum of the PyTorch backend's sampler (`DEFAULT_MAX_TOPK_LOGPROBS`)."""

_SAMPLING = frozenset({"sampling.top_k", "sampling.top_p"})
_SAMPLING_OF_TENSORRT = frozenset(
    {
        "sampling.frequency_penalty",
        "sampling.min_p",
        "sampling.presence_penalty",
        "sampling.repetition_penalty",
        "sampling.seed",
    }
)


def features(knobs: Knobs, *, has_chat_template: bool, has_adapters: bool) -> frozenset[str]:
    """The paths of the supported fields."""
    supported = common_features(
        has_chat_template=has_chat_template, has_constraints=has_constraints(knobs), has_adapters=has_adapters
    )
    if not knobs.is_greedy_only:
        supported |= _SAMPLING
        if knobs.backend == TENSORRT:
            supported |= _SAMPLING_OF_TENSORRT
    if has_logprobs(knobs):
        supported |= {"output.top_logprobs"}
    return supported


def has_logprobs(knobs: Knobs) -> bool:
    """Whether log probabilities are supported."""
    return not knobs.is_greedy_only and (knobs.backend != TENSORRT or bool(knobs.gather_generation_logits))


def has_constraints(knobs: Knobs) -> bool:
    """Whether constraints are supported."""
    return knobs.guided_decoding_backend is not None and not knobs.lookahead


def describe(context: TrtLlmContext) -> ModelInfo:
    """Describes the loaded model."""
    deployment, tokenizer = context.deployment, context.tokenizer
    supported = features(
        deployment.knobs, has_chat_template=tokenizer.has_chat_template, has_adapters=bool(context.adapters)
    )
    return ModelInfo(
        model=deployment.folder.name,
        revision=deployment.folder.revision,
        engine="trtllm",
        engine_version=deployment.version,
        context_tokens=deployment.context,
        vocabulary_size=tokenizer.vocabulary_size,
        slots=deployment.knobs.slots or 1,
        features=supported,
        max_top_logprobs=_MAX_TOP_LOGPROBS if has_logprobs(deployment.knobs) else 0,
        profile=deployment.options.profile,
        adapters=tuple(context.adapters),
        longest_token_bytes=tokenizer.longest_token_bytes,
        default_sampling=_default_sampling(deployment.knobs, tokenizer.default_sampling, supported),
        tokenizer_folder=deployment.folder.path,
    )


def _default_sampling(knobs: Knobs, recommended: SamplingDefaults, supported: frozenset[str]) -> SamplingDefaults:
    """The default sampling settings: the profile's, or else the supported ones of the model's own."""
    if knobs.temperature is not None or knobs.top_p is not None:
        return SamplingDefaults(temperature=knobs.temperature, top_p=knobs.top_p)
    if knobs.is_greedy_only:
        return SamplingDefaults(temperature=0.0)
    unsupported = {field.name: None for field in fields(SamplingDefaults) if f"sampling.{field.name}" not in supported}
    return replace(recommended, **unsupported)
