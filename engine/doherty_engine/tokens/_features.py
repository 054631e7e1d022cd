"""The fields of GenerateRequest that all engines with this base support."""

CONSTRAINTS = frozenset({"constraint.choices", "constraint.grammar", "constraint.json_schema", "constraint.regex"})
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


def common_features(*, has_chat_template: bool, has_constraints: bool, has_adapters: bool) -> frozenset[str]:
    """The paths of the supported fields, except those that depend on the sampling of the library."""
    features = _ALWAYS
    if has_chat_template:
        features |= {"messages", "prompt"}
    if has_constraints:
        features |= CONSTRAINTS
    if has_adapters:
        features |= {"adapter"}
    return features
