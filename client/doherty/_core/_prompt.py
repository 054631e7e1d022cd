"""The types of prompts, and their conversion to a request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from doherty._core._put import put
from doherty.v1.generation_service_pb2 import CountTokensRequest
from doherty.v1.request_pb2 import GenerateRequest
from doherty.v1.request_pb2 import Role as WireRole

Role = Literal["system", "user", "assistant"]
"""The author of a message."""

_ROLES: Final = {
    "system": WireRole.ROLE_SYSTEM,
    "user": WireRole.ROLE_USER,
    "assistant": WireRole.ROLE_ASSISTANT,
}


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str

    def __post_init__(self) -> None:
        if self.role not in _ROLES:
            raise ValueError(f"A message's role is one of {', '.join(_ROLES)}, not {self.role!r}.")
        if not isinstance(self.content, str):
            raise TypeError(f"A message's content is a str, not {type(self.content).__name__}.")


@dataclass(frozen=True, slots=True)
class RawText:
    """A prompt that goes to the model unchanged, without the chat template."""

    text: str


@dataclass(frozen=True, slots=True)
class TokenIds:
    """A prompt, or a part of an answer, that is already tokenized."""

    ids: Sequence[int]


TextPrompt = str | RawText | Sequence[Message | Mapping[str, str]]
"""A prompt whose tokens only the server can count."""

Prompt = TextPrompt | TokenIds
"""All kinds of prompts."""


def put_prompt(request: GenerateRequest | CountTokensRequest, prompt: Prompt, system: str | None) -> None:
    """Sets the input field of a request that corresponds to the type of the prompt.

    Args:
        request: The request to fill in.
        prompt: A str is one user message; a sequence of messages is a conversation.
        system: The system message to put first, if any.

    Raises:
        TypeError: The prompt has an unknown type.
        ValueError: The prompt is empty or malformed, or cannot have the system message.
    """
    if system is not None and not isinstance(system, str):
        raise TypeError(f"system= is a str, not {type(system).__name__}.")
    if isinstance(prompt, RawText | TokenIds):
        if system is not None:
            raise ValueError(f"system= needs the chat template, which {type(prompt).__name__} does not use.")
        _put_untemplated(request, prompt)
    elif isinstance(prompt, str) and system is None:
        put(request, prompt=prompt)
    else:
        turns = (Message("user", prompt),) if isinstance(prompt, str) else _conversation(prompt)
        if system is not None:
            if any(turn.role == "system" for turn in turns):
                raise ValueError("system= and a system message in the prompt exclude each other.")
            turns = (Message("system", system), *turns)
        for turn in turns:
            put(request.messages.add(), role=_ROLES[turn.role], content=turn.content)


def _put_untemplated(request: GenerateRequest | CountTokensRequest, prompt: RawText | TokenIds) -> None:
    if isinstance(prompt, RawText):
        put(request, raw_text=prompt.text)
    elif isinstance(request, CountTokensRequest):
        raise TypeError("TokenIds need no counting: their count is len(prompt.ids).")
    elif not prompt.ids:
        raise ValueError("The prompt has no token ids.")
    else:
        put(request, token_ids=prompt.ids)


def _conversation(prompt: Any) -> tuple[Message, ...]:
    if isinstance(prompt, Message | Mapping):
        raise TypeError("A message is not a prompt by itself: put it into a list.")
    if not isinstance(prompt, Sequence) or isinstance(prompt, bytes | bytearray):
        raise TypeError(f"A prompt is a str, a list of messages, RawText or TokenIds, not {type(prompt).__name__}.")
    if not prompt:
        raise ValueError("The prompt has no messages.")
    return tuple(map(_turn, prompt))


def _turn(turn: Any) -> Message:
    if isinstance(turn, Message):
        return turn
    if not isinstance(turn, Mapping):
        raise TypeError(f"A message is a Message or a mapping with role and content, not {type(turn).__name__}.")
    if set(turn) != {"role", "content"}:
        raise ValueError(f"A message has the keys role and content and no others, not {list(turn)}.")
    return Message(role=cast("Role", turn["role"]), content=turn["content"])
