"""Renders conversations with a model's chat template."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace

from doherty_engine._requests import Message, Role
from doherty_engine.text._control_tokens import ControlTokens

Render = Callable[[Sequence[Message]], str]
"""Renders a conversation with a chat template. The message of a ValueError that it raises is meant for the caller."""

UNUSABLE_TEMPLATE = "The model's chat template cannot render a conversation: prompt and messages are not supported."
"""A warning for the log."""

_MAX_REFUSAL = 200
"""The maximum length of a template's message in an error, in characters."""
_HELLO = Message(Role.USER, "Hello")
_MARKER_BITS = 64


def template_refusal(reason: str) -> ValueError:
    """Creates the error for a conversation that the template refuses; `reason` is the template's own message."""
    printable = "".join(letter if letter.isprintable() else " " for letter in reason[: 4 * _MAX_REFUSAL])
    return ValueError(f"the model's chat template refuses it: {' '.join(printable.split())[:_MAX_REFUSAL]}")


def template_failure() -> ValueError:
    """Creates the error for a template that fails; it has no details, which would quote the template's source."""
    return ValueError("the model's chat template cannot render it")


def can_render(render: Render) -> bool:
    """Whether a template renders a minimal conversation, and the result contains the message."""
    try:
        return _HELLO.content.casefold() in render([_HELLO]).casefold()
    except ValueError:
        return False


def begins_answer(messages: Sequence[Message]) -> bool:
    """Whether a template must begin an answer after the conversation.

    It must not if the conversation ends with an answer. Such conversations are only used to count tokens.
    """
    return messages[-1].role is not Role.ASSISTANT


def render_parts(messages: Sequence[Message], controls: ControlTokens, render: Render) -> list[str]:
    """Renders a conversation into parts; every second part, starting with the second, must be encoded as plain text.

    These parts are the control tokens that message contents spell out. Before rendering, each of them is put between
    two markers. So templates that trim, cut or change contents work as usual, and the output distinguishes the caller's
    control tokens from the template's own.
    """
    if not controls.count(message.content for message in messages):
        return [render(messages)]
    marker = str(secrets.randbits(_MARKER_BITS))  # digits are changed by no template, and random ones are unpredictable
    marked = [replace(message, content=controls.surround(message.content, marker)) for message in messages]
    return render(marked).split(marker)
