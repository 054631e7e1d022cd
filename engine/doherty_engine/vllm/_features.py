"""The fields of requests that vLLM supports."""

from dataclasses import replace

from doherty_engine._engine import ModelInfo
from doherty_engine.tokens import common_features
from doherty_engine.vllm._context import VllmContext
from doherty_engine.vllm._options import Options

_SAMPLING = frozenset(
    {
        "output.top_logprobs",
        "sampling.frequency_penalty",
        "sampling.presence_penalty",
        "sampling.repetition_penalty",
        "sampling.seed",
        "sampling.top_k",
        "sampling.top_p",
        "stopping.min_output_tokens",
    }
)
_MAX_TOP_LOGPROBS = 20
"""Maximum number for callers. vLLM's own maximum may be lower, or -1 for none."""


def describe(options: Options, context: VllmContext) -> ModelInfo:
    """Describes the model of a started vLLM."""
    config = context.llm.vllm_config
    max_logprobs: int = config.model_config.max_logprobs
    features = _SAMPLING | common_features(
        has_chat_template=context.tokenizer.has_chat_template,
        has_constraints=context.compile_constraint is not None,
        has_adapters=bool(context.adapters),
    )
    if not context.speculates:  # vLLM does not support min_p together with speculative decoding
        features |= {"sampling.min_p"}
    sampling = context.tokenizer.default_sampling
    return ModelInfo(
        model=context.folder.name,
        revision=context.folder.revision,
        engine="vllm",
        engine_version=context.library.version,
        context_tokens=config.model_config.max_model_len,
        vocabulary_size=context.reader.vocabulary_size,
        slots=config.scheduler_config.max_num_seqs,
        features=features,
        max_top_logprobs=min(max_logprobs, _MAX_TOP_LOGPROBS) if max_logprobs >= 0 else _MAX_TOP_LOGPROBS,
        profile=options.profile,
        adapters=tuple(context.adapters),
        longest_token_bytes=context.tokenizer.longest_token_bytes,
        default_sampling=replace(sampling, min_p=None) if context.speculates else sampling,
        tokenizer_folder=context.folder.path,
    )
