"""Which fields of GenerateRequest are honoured, by backend and configuration.

Each line that is missing has its reason in TensorRT-LLM 1.2.1:

* `stopping.min_output_tokens`: `min_tokens` keeps back one end-of-sequence token, and Llama 3 has two.
* penalties and `sampling.seed` on the PyTorch backend: its sampler takes them and does nothing with them (NVIDIA's pull
  requests 16485 and 17172, both after 1.2). `sampling.min_p`: its sampler of 1.2 is not known to have it.
* all of the sampling, with speculation: every answer is greedy (`Knobs.is_greedy_only`). A temperature of 0 is.
* `output.top_logprobs` on the backend tensorrt without `gather_generation_logits`: refused by `_check_arguments` of
  `llmapi/llm.py`; with speculation: "outputLogProbs are not supported" (`lookaheadDecodingLayer.cpp`).
* constraints without a `guided_decoding_backend`, and with lookahead.
"""

from dataclasses import fields, replace

from doherty_engine._engine import ModelInfo, SamplingDefaults
from doherty_engine.tokens import common_features
from doherty_engine.trtllm._context import TrtLlmContext
from doherty_engine.trtllm._knobs import TENSORRT, Knobs

_MAX_TOP_LOGPROBS = 20
"""What the PyTorch backend's sampler keeps room for (`DEFAULT_MAX_TOPK_LOGPROBS`)."""

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
    """The paths of the fields that are honoured."""
    honoured = common_features(
        has_chat_template=has_chat_template, has_constraints=has_constraints(knobs), has_adapters=has_adapters
    )
    if not knobs.is_greedy_only:
        honoured |= _SAMPLING
        if knobs.backend == TENSORRT:
            honoured |= _SAMPLING_OF_TENSORRT
    if has_logprobs(knobs):
        honoured |= {"output.top_logprobs"}
    return honoured


def has_logprobs(knobs: Knobs) -> bool:
    """Whether log probabilities can be had."""
    return not knobs.is_greedy_only and (knobs.backend != TENSORRT or bool(knobs.gather_generation_logits))


def has_constraints(knobs: Knobs) -> bool:
    """Whether answers can be made to fit a form."""
    return knobs.guided_decoding_backend is not None and not knobs.lookahead


def describe(context: TrtLlmContext) -> ModelInfo:
    """What is served."""
    deployment, tokenizer = context.deployment, context.tokenizer
    honoured = features(
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
        features=honoured,
        max_top_logprobs=_MAX_TOP_LOGPROBS if has_logprobs(deployment.knobs) else 0,
        profile=deployment.options.profile,
        adapters=tuple(context.adapters),
        longest_token_bytes=tokenizer.longest_token_bytes,
        default_sampling=_default_sampling(deployment.knobs, tokenizer.default_sampling, honoured),
        tokenizer_folder=deployment.folder.path,
    )


def _default_sampling(knobs: Knobs, recommended: SamplingDefaults, honoured: frozenset[str]) -> SamplingDefaults:
    """What requests get that say nothing: the profile's sampling, else what of the model's own can be honoured."""
    if knobs.temperature is not None or knobs.top_p is not None:
        return SamplingDefaults(temperature=knobs.temperature, top_p=knobs.top_p)
    if knobs.is_greedy_only:
        return SamplingDefaults(temperature=0.0)
    unknown = {each.name: None for each in fields(SamplingDefaults) if f"sampling.{each.name}" not in honoured}
    return replace(recommended, **unknown)
