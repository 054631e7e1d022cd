"""What vLLM honours of a request."""

from dataclasses import replace

from doherty_engine._engine import ModelInfo
from doherty_engine.text import ModelFolder
from doherty_engine.vllm._options import Options
from doherty_engine.vllm._work import Workshop

_ALWAYS = frozenset(
    {
        "continue_from.text",
        "continue_from.token_ids",
        "output.token_ids",
        "output.top_logprobs",
        "raw_text",
        "sampling.frequency_penalty",
        "sampling.presence_penalty",
        "sampling.repetition_penalty",
        "sampling.seed",
        "sampling.temperature",
        "sampling.top_k",
        "sampling.top_p",
        "stopping.ignore_eos",
        "stopping.include_stop_text",
        "stopping.max_output_tokens",
        "stopping.min_output_tokens",
        "stopping.stop_texts",
        "stopping.stop_token_ids",
        "stopping.time_limit",
        "token_ids",
    }
)
_CONSTRAINTS = frozenset({"constraint.choices", "constraint.grammar", "constraint.json_schema", "constraint.regex"})
_MOST_TOP_LOGPROBS = 20
"""What a caller may ask for; vLLM's own bound may be lower, or -1 for none."""


def describe(options: Options, folder: ModelFolder, shop: Workshop) -> ModelInfo:
    """What the engine serves, on a vLLM that has started."""
    config = shop.llm.vllm_config
    most_logprobs: int = config.model_config.max_logprobs
    features = _ALWAYS
    if shop.tokenizer.has_chat_template:
        features |= {"messages", "prompt"}
    if not shop.speculates:  # which vLLM refuses together with min_p
        features |= {"sampling.min_p"}
    if shop.forms is not None:
        features |= _CONSTRAINTS
    if options.adapters:
        features |= {"adapter"}
    sampling = shop.tokenizer.default_sampling
    return ModelInfo(
        model=folder.name,
        revision=folder.revision,
        engine="vllm",
        engine_version=shop.library.version,
        context_tokens=config.model_config.max_model_len,
        vocabulary_size=shop.reader.vocabulary_size,
        slots=config.scheduler_config.max_num_seqs,
        features=features,
        max_top_logprobs=min(most_logprobs, _MOST_TOP_LOGPROBS) if most_logprobs >= 0 else _MOST_TOP_LOGPROBS,
        profile=options.profile,
        adapters=tuple(name for name, _ in options.adapters),
        longest_token_bytes=shop.tokenizer.longest_token_bytes,
        default_sampling=replace(sampling, min_p=None) if shop.speculates else sampling,
    )
