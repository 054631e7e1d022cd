"""What the base needs to know of a tokenizer; `text.HuggingFaceTokenizer` is one."""

from collections.abc import Sequence
from typing import Protocol

from doherty_engine._requests import Message
from doherty_engine.text import ControlTokens


class TokenTable(Protocol):
    """What the tokens of an answer stand for."""

    @property
    def pieces(self) -> Sequence[bytes]:
        """The bytes of each token in an answer, by id: those of special tokens are empty."""
        ...

    @property
    def eos_ids(self) -> frozenset[int]:
        """The tokens at which the model ends its answer."""
        ...


class Tokenizer(TokenTable, Protocol):
    """Turns conversations and texts into token ids. Threads may share it."""

    @property
    def controls(self) -> ControlTokens:
        """The tokens that structure a conversation."""
        ...

    @property
    def vocabulary_size(self) -> int:
        """One more than the largest id."""
        ...

    @property
    def longest_token_bytes(self) -> int:
        """The length of the longest of `pieces`."""
        ...

    def render(self, messages: Sequence[Message], *, control_tokens: bool = False) -> Sequence[int]:
        """The tokens of a conversation, up to where the assistant's answer begins.

        Args:
            messages: The conversation.
            control_tokens: Whether control tokens that a content spells out are read as such, or else as text.

        Raises:
            ValueError: The chat template refuses the conversation; the message is for the caller.
        """
        ...

    def encode(self, text: str) -> Sequence[int]:
        """The tokens of a text that is a whole prompt."""
        ...

    def encode_answer(self, text: str) -> Sequence[int]:
        """The tokens of a part of an answer.

        Raises:
            ValueError: The tokenizer changes this text.
        """
        ...
