"""The Protocol of tokenizers. `text.HuggingFaceTokenizer` implements it."""

from collections.abc import Sequence
from typing import Protocol

from doherty_engine._requests import Message
from doherty_engine.text import ControlTokens


class TokenTable(Protocol):
    """The text of tokens."""

    @property
    def pieces(self) -> Sequence[bytes]:
        """The bytes of each token in an answer, by id. Those of special tokens are empty."""
        ...

    @property
    def eos_ids(self) -> frozenset[int]:
        """The tokens at which the model ends its answer."""
        ...


class Tokenizer(TokenTable, Protocol):
    """Turns conversations and texts into token ids. Thread-safe."""

    @property
    def controls(self) -> ControlTokens:
        """The control tokens, which structure a conversation."""
        ...

    @property
    def vocabulary_size(self) -> int:
        """The largest token id plus 1."""
        ...

    @property
    def longest_token_bytes(self) -> int:
        """The length of the longest of `pieces`."""
        ...

    def render(self, messages: Sequence[Message], *, control_tokens: bool = False) -> Sequence[int]:
        """The tokens of a conversation, up to where the assistant's answer begins.

        Args:
            messages: The conversation.
            control_tokens: Whether control tokens spelled out in a message are read as control tokens or as text.

        Raises:
            ValueError: The chat template refuses the conversation; the message is for the caller.
        """
        ...

    def encode(self, text: str) -> Sequence[int]:
        """The tokens of a whole prompt."""
        ...

    def encode_answer(self, text: str) -> Sequence[int]:
        """The tokens of the beginning of an answer.

        Raises:
            ValueError: The tokenizer would change this text.
        """
        ...
