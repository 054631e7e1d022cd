"""Conversations on their way through a model's chat template."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace

from doherty_engine._requests import Message, Role
from doherty_engine.text._control_tokens import ControlTokens

Render = Callable[[Sequence[Message]], str]
"""Renders a conversation with a chat template; a ValueError says for the caller why it cannot."""

UNUSABLE_TEMPLATE = "The model's chat template cannot render a conversation: prompt and messages are not served."
"""For the log."""

_LONGEST_REFUSAL = 200
_HELLO = Message(Role.USER, "Hello")
_MARK_BITS = 64


def template_refusal(words: str) -> ValueError:
    """What a caller is told whose conversation the template itself refuses, in the template's own words."""
    shown = "".join(letter if letter.isprintable() else " " for letter in words[: 4 * _LONGEST_REFUSAL])
    return ValueError(f"the model's chat template refuses it: {' '.join(shown.split())[:_LONGEST_REFUSAL]}")


def template_failure() -> ValueError:
    """What a caller is told on whose conversation the template fails: what it said quotes its source."""
    return ValueError("the model's chat template cannot render it")


def can_render(render: Render) -> bool:
    """Whether a template renders the simplest conversation that there is, with what it says."""
    try:
        return _HELLO.content.casefold() in render([_HELLO]).casefold()
    except ValueError:
        return False


def begins_answer(messages: Sequence[Message]) -> bool:
    """Whether a template shall begin an answer behind a conversation: one that ends with an answer is only counted."""
    return messages[-1].role is not Role.ASSISTANT


def render_parts(messages: Sequence[Message], controls: ControlTokens, render: Render) -> list[str]:
    """Renders a conversation into parts: the second one, and each second one behind it, must be read as plain text.

    Those are the control tokens that its contents spell out. They go through the template between two marks, so that
    templates which trim, cut or change contents work as ever, and its output tells them from the template's own.
    """
    if not controls.count(message.content for message in messages):
        return [render(messages)]
    mark = str(secrets.randbits(_MARK_BITS))  # digits, which no template changes, and nobody can foresee
    marked = [replace(message, content=controls.surround(message.content, mark)) for message in messages]
    return render(marked).split(mark)
