"""How many tokens an answer may have."""

from doherty_engine._errors import InvalidInputError
from doherty_engine._requests import Conversation, Input, RawText, Stopping


def input_field(content: Input) -> str:
    """The path of the request's field that an input came from."""
    if isinstance(content, Conversation):
        return content.field
    return "raw_text" if isinstance(content, RawText) else "token_ids"


def output_budget(content: Input, prompt_tokens: int, context_tokens: int, stopping: Stopping) -> int:
    """How many tokens the whole answer may have, the prefix included.

    Raises:
        InvalidInputError: the prompt fills the context, or the caller's own maximum does not fit behind it, or its
            minimum does not fit the default.
    """
    left = context_tokens - prompt_tokens
    if left < 1:
        raise InvalidInputError(
            input_field(content),
            f"the prompt has {prompt_tokens} tokens, and the context of {context_tokens} must hold an answer too",
        )
    if stopping.max_output_tokens is None:
        budget = min(stopping.default_max_output_tokens, left)
        if stopping.min_output_tokens > budget:
            raise InvalidInputError("stopping.min_output_tokens", f"the default of max_output_tokens is {budget} here")
        return budget
    if stopping.max_output_tokens > left:
        raise InvalidInputError(
            "stopping.max_output_tokens",
            f"{stopping.max_output_tokens} tokens do not fit: behind a prompt of {prompt_tokens} tokens "
            f"the context of {context_tokens} leaves {left}",
        )
    return stopping.max_output_tokens
