"""The tokenizer of the synthetic engine. Its tokens are the 256 bytes, hundreds of words, and special tokens.

A text is tokenized from the left: the longest word that matches, else a byte. Since every word consists of a space and
letters, the tokens of a text's beginning are the beginning of the text's tokens.
"""

import re
from collections.abc import Iterable, Sequence

from doherty_engine import Message, Role
from doherty_engine.synthetic._words import WORDS
from doherty_engine.text import ControlTokens, begins_answer

_SPECIALS = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
_BYTES = tuple(bytes([value]) for value in range(256))
_WORD_BYTES = tuple(f" {word}".encode() for word in WORDS)
_RUNS = re.compile(rb" [a-z]+|[^ ]+| ")
LONGEST_TOKEN_BYTES = max(map(len, _WORD_BYTES))

TOKEN_TEXT = (*_BYTES, *_WORD_BYTES, *(b"" for _ in _SPECIALS))
"""The text of each token, by id; empty for specials."""
TOKEN_NAME = (*_BYTES, *_WORD_BYTES, *(special.encode() for special in _SPECIALS))
"""The name of each token, by id."""
VOCABULARY_SIZE = len(TOKEN_TEXT)
WORD_IDS = {word: len(_BYTES) + index for index, word in enumerate(_WORD_BYTES)}
END_OF_SEQUENCE = VOCABULARY_SIZE - 1
_ROLE_IDS = {
    Role.SYSTEM: VOCABULARY_SIZE - 4,
    Role.USER: VOCABULARY_SIZE - 3,
    Role.ASSISTANT: VOCABULARY_SIZE - 2,
}


def encode(text: str) -> list[int]:
    """Tokenizes a text; `decode` reverses it."""
    ids: list[int] = []
    for run in _RUNS.findall(text.encode()):
        length = _word_length(run)
        if length:
            ids.append(WORD_IDS[run[:length]])
        ids += run[length:]
    return ids


def _word_length(run: bytes) -> int:
    """The length of the word at the beginning, including its space; 0 if there is none."""
    if run[0] != ord(" "):
        return 0
    lengths = range(min(len(run), LONGEST_TOKEN_BYTES), 0, -1)
    return next((length for length in lengths if run[:length] in WORD_IDS), 0)


def decode(ids: Iterable[int]) -> bytes:
    """The text of tokens. It may end within a code point."""
    return b"".join(TOKEN_TEXT[token_id] for token_id in ids)


class SyntheticTokenizer:
    """Implements the Protocol `Tokenizer`."""

    pieces = TOKEN_TEXT
    eos_ids = frozenset({END_OF_SEQUENCE})
    controls = ControlTokens({})
    """Empty: no text is tokenized as a special token."""
    vocabulary_size = VOCABULARY_SIZE
    longest_token_bytes = LONGEST_TOKEN_BYTES

    def render(self, messages: Sequence[Message], *, control_tokens: bool = False) -> list[int]:
        del control_tokens
        ids: list[int] = []
        for message in messages:
            ids += (_ROLE_IDS[message.role], *encode(message.content), END_OF_SEQUENCE)
        if begins_answer(messages):
            ids.append(_ROLE_IDS[Role.ASSISTANT])
        return ids

    def encode(self, text: str) -> list[int]:
        return encode(text)

    def encode_answer(self, text: str) -> list[int]:
        return encode(text)
