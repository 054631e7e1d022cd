"""Computes how many tokens an answer may have."""

from doherty_engine._errors import InvalidInputError
from doherty_engine._requests import Conversation, Input, RawText, Stopping


def input_field(content: Input) -> str:
    """The path of the request field that contained an input."""
    if isinstance(content, Conversation):
        return content.field
    return "raw_text" if isinstance(content, RawText) else "token_ids"


def output_budget(content: Input, prompt_tokens: int, context_tokens: int, stopping: Stopping) -> int:
    """The maximum number of tokens of the whole answer, including the prefix.

    Raises:
        InvalidInputError: The prompt fills the context, the caller's maximum does not fit after the prompt, or the
            caller's minimum exceeds the default maximum.
    """
    room = context_tokens - prompt_tokens
    if room < 1:
        raise InvalidInputError(
            input_field(content),
            f"the prompt has {prompt_tokens} tokens, and the context of {context_tokens} must hold an answer too",
        )
    if stopping.max_output_tokens is None:
        budget = min(stopping.default_max_output_tokens, room)
        if stopping.min_output_tokens > budget:
            raise InvalidInputError("stopping.min_output_tokens", f"the default of max_output_tokens is {budget} here")
        return budget
    if stopping.max_output_tokens > room:
        raise InvalidInputError(
            "stopping.max_output_tokens",
            f"{stopping.max_output_tokens} tokens do not fit: after a prompt of {prompt_tokens} tokens "
            f"the context of {context_tokens} leaves {room}",
        )
    return stopping.max_output_tokens
