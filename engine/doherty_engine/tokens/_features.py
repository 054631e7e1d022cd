"""The fields of GenerateRequest that every engine with this base honours."""

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
    """The paths of the fields that are honoured, except those that depend on how the library samples."""
    features = _ALWAYS
    if has_chat_template:
        features |= {"messages", "prompt"}
    if has_constraints:
        features |= CONSTRAINTS
    if has_adapters:
        features |= {"adapter"}
    return features
