"""The tokens of the synthetic engine: every byte, some hundred words with the space before them, and a few specials.

A text has one reading: from the left, the longest word that fits, else a byte. As every word is a space and letters,
the reading of a text's beginning is the beginning of its reading.
"""

import re
from collections.abc import Iterable

from doherty_engine import Conversation, HeldPart, Input, InvalidInputError, RawText, Role, input_field
from doherty_engine.synthetic._words import WORDS
from doherty_engine.text import begins_answer

_SPECIALS = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
_BYTES = tuple(bytes([value]) for value in range(256))
_WORD_BYTES = tuple(f" {word}".encode() for word in WORDS)
_RUNS = re.compile(rb" [a-z]+|[^ ]+| ")
LONGEST_TOKEN_BYTES = max(map(len, _WORD_BYTES))

TOKEN_TEXT = (*_BYTES, *_WORD_BYTES, *(b"" for _ in _SPECIALS))
"""What every token adds to a text, by id: the specials nothing."""
TOKEN_NAME = (*_BYTES, *_WORD_BYTES, *(special.encode() for special in _SPECIALS))
"""What every token is called, by id."""
VOCABULARY_SIZE = len(TOKEN_TEXT)
WORD_IDS = {word: len(_BYTES) + index for index, word in enumerate(_WORD_BYTES)}
END_OF_SEQUENCE = VOCABULARY_SIZE - 1
_ROLE_IDS = {
    Role.SYSTEM: VOCABULARY_SIZE - 4,
    Role.USER: VOCABULARY_SIZE - 3,
    Role.ASSISTANT: VOCABULARY_SIZE - 2,
}


def encode(text: str) -> list[int]:
    """Reads a text as tokens; `decode` gives it back."""
    ids: list[int] = []
    for run in _RUNS.findall(text.encode()):
        length = _word_length(run)
        if length:
            ids.append(WORD_IDS[run[:length]])
        ids += run[length:]
    return ids


def _word_length(run: bytes) -> int:
    """How much of the beginning is a word; none of it if it does not begin with a space."""
    if run[0] != ord(" "):
        return 0
    lengths = range(min(len(run), LONGEST_TOKEN_BYTES), 0, -1)
    return next((length for length in lengths if run[:length] in WORD_IDS), 0)


def decode(ids: Iterable[int]) -> bytes:
    """The text of tokens, which may end within a code point."""
    return b"".join(TOKEN_TEXT[token_id] for token_id in ids)


def read_input(content: Input) -> list[int]:
    """Reads an input as the model does, a conversation through the chat template.

    Raises:
        InvalidInputError: a token id is too large.
    """
    if isinstance(content, Conversation):
        return _render(content)
    if isinstance(content, RawText):
        return encode(content.text)
    check_ids(content.ids, "token_ids")
    return list(content.ids)


def read_held(held: HeldPart) -> list[int]:
    """Reads the part of an answer that a caller holds.

    Raises:
        InvalidInputError: a token id is too large.
    """
    check_ids(held.token_ids, "continue_from.token_ids")
    return list(held.token_ids) or encode(held.text)


def check_size(content: Input, context_tokens: int) -> None:
    """Makes sure that a text is not so long that reading it would keep everybody waiting, only to refuse it then.

    Raises:
        InvalidInputError: no context of so many tokens holds it.
    """
    if isinstance(content, Conversation):
        size = sum(len(message.content) for message in content.messages)
    else:
        size = len(content.text) if isinstance(content, RawText) else 0
    if size > context_tokens * LONGEST_TOKEN_BYTES:
        raise InvalidInputError(input_field(content), "the prompt is larger than the context could ever hold")


def check_ids(ids: Iterable[int], field: str) -> None:
    """Makes sure that the model knows the tokens.

    Raises:
        InvalidInputError: a token id is too large.
    """
    for token_id in ids:
        if not 0 <= token_id < VOCABULARY_SIZE:
            raise InvalidInputError(field, f"{token_id} is not below the vocabulary's size, {VOCABULARY_SIZE}")


def _render(conversation: Conversation) -> list[int]:
    ids: list[int] = []
    for message in conversation.messages:
        ids += (_ROLE_IDS[message.role], *encode(message.content), END_OF_SEQUENCE)
    if begins_answer(conversation.messages):
        ids.append(_ROLE_IDS[Role.ASSISTANT])
    return ids
