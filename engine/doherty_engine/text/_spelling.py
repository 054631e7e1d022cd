"""Converts the spelling of tokens in a vocabulary to the bytes that they stand for."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from doherty_engine._errors import EngineSetupError

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""SentencePiece's symbol for a space."""
_BYTE_TOKEN = re.compile("<0x([0-9A-F]{2})>")


def _byte_letters() -> dict[int, str]:
    """GPT-2's letter for each byte: visible Latin-1 letters stand for themselves, other bytes get U+0100 and up."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(0x100) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(0x100 + place) for place, byte in enumerate(hidden)}


_LETTER_TO_LATIN1 = {ord(letter): chr(byte) for byte, letter in _byte_letters().items()}


def spell_byte_level(token: str) -> bytes:
    """The bytes of a token in GPT-2's spelling."""
    try:
        return token.translate(_LETTER_TO_LATIN1).encode("latin-1")
    except UnicodeEncodeError:  # a token that was added later, and does not use GPT-2's spelling
        return token.encode()


def spell_sentence_piece(token: str) -> bytes:
    """The bytes of a token in SentencePiece's spelling."""
    return token.replace(_SPACE, " ").encode()


def spelling(decoder: Mapping[str, Any] | None) -> Callable[[str], bytes]:
    """Chooses the function that converts tokens to bytes, by the decoder in tokenizer.json.

    Without a decoder, every token is a word. Some decoders also change the beginning of a text, for example by removing
    a space. We ignore this, because an answer is never the beginning of a text: it follows its prompt.

    Raises:
        EngineSetupError: The kind of decoder is not supported.
    """
    if decoder is None:
        return _spell_word
    parts = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    kinds = {part["type"] for part in parts}
    if "ByteLevel" in kinds:
        return spell_byte_level
    if "ByteFallback" in kinds:
        return _spell_byte_fallback
    if kinds <= {"Fuse", "Metaspace", "Replace", "Strip"}:
        return spell_sentence_piece
    raise EngineSetupError(
        f"The model's tokenizer.json has a decoder of the kind {decoder['type']}, which is not supported; choose a "
        "model with a byte-level or SentencePiece tokenizer."
    )


def _spell_byte_fallback(token: str) -> bytes:
    byte = _BYTE_TOKEN.fullmatch(token)
    return spell_sentence_piece(token) if byte is None else bytes([int(byte[1], 16)])


def _spell_word(token: str) -> bytes:
    return f" {token}".encode()
