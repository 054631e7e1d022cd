"""How tokenizers spell bytes: what each token of a vocabulary stands for in a text."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from doherty_engine._errors import EngineSetupError

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""How SentencePiece writes a space."""
_BYTE_TOKEN = re.compile("<0x([0-9A-F]{2})>")


def _byte_letters() -> dict[int, str]:
    """How GPT-2 spells bytes: those that are no visible Latin-1 letter as the letters from U+0100 on, in order."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(0x100) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(0x100 + place) for place, byte in enumerate(hidden)}


_LETTER_TO_LATIN1 = {ord(letter): chr(byte) for byte, letter in _byte_letters().items()}


def spell_byte_level(token: str) -> bytes:
    """The bytes of a token that is spelt as GPT-2 does it."""
    try:
        return token.translate(_LETTER_TO_LATIN1).encode("latin-1")
    except UnicodeEncodeError:  # not GPT-2's spelling: a token that was added later
        return token.encode()


def spell_sentence_piece(token: str) -> bytes:
    """The bytes of a token that is spelt as SentencePiece does it."""
    return token.replace(_SPACE, " ").encode()


def spelling(decoder: Mapping[str, Any] | None) -> Callable[[str], bytes]:
    """How the tokens of a tokenizer.json are spelt, by its decoder; without one, every token is a word.

    What a decoder does to the beginning of a text, as to take a space away, is left out: an answer stands behind its
    prompt.

    Raises:
        EngineSetupError: it is of a kind that is not known here.
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
        f"The model's tokenizer.json has a decoder of the kind {decoder['type']}, which is not known here; name a "
        "model with a byte-level or SentencePiece tokenizer."
    )


def _spell_byte_fallback(token: str) -> bytes:
    byte = _BYTE_TOKEN.fullmatch(token)
    return spell_sentence_piece(token) if byte is None else bytes([int(byte[1], 16)])


def _spell_word(token: str) -> bytes:
    return f" {token}".encode()
