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

from doherty_engine.trtllm._knobs import TENSORRT, Knobs

MAX_TOP_LOGPROBS = 20
"""What the PyTorch backend's sampler keeps room for (`DEFAULT_MAX_TOPK_LOGPROBS`)."""

_ALWAYS = frozenset(
    {
        "continue_from.text",
        "continue_from.token_ids",
        "output.token_ids",
        "raw_text",
        "sampling.temperature",
        "stopping.ignore_eos",
        "stopping.include_stop_text",
        "stopping.max_output_tokens",
        "stopping.stop_texts",
        "stopping.stop_token_ids",
        "stopping.time_limit",
        "token_ids",
    }
)
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
_CONSTRAINTS = frozenset({"constraint.choices", "constraint.grammar", "constraint.json_schema", "constraint.regex"})


def features(knobs: Knobs, *, has_chat_template: bool, has_adapters: bool) -> frozenset[str]:
    """The paths of the fields that are honoured."""
    found = _ALWAYS
    if has_chat_template:
        found |= {"messages", "prompt"}
    if not knobs.is_greedy_only:
        found |= _SAMPLING
        if knobs.backend == TENSORRT:
            found |= _SAMPLING_OF_TENSORRT
    if has_logprobs(knobs):
        found |= {"output.top_logprobs"}
    if has_constraints(knobs):
        found |= _CONSTRAINTS
    if has_adapters:
        found |= {"adapter"}
    return found


def has_logprobs(knobs: Knobs) -> bool:
    """Whether log probabilities can be had."""
    return not knobs.is_greedy_only and (knobs.backend != TENSORRT or bool(knobs.gather_generation_logits))


def has_constraints(knobs: Knobs) -> bool:
    """Whether answers can be made to fit a form."""
    return knobs.guided_decoding_backend is not None and not knobs.lookahead
