"""The tokens of the synthetic engine's answers."""

from collections.abc import Sequence
from hashlib import blake2b
from struct import Struct, pack
from typing import Protocol

from doherty_engine import Sampling
from doherty_engine.synthetic._tokenizer import END_OF_SEQUENCE, WORD_IDS

_BLOCK = 32
_DRAWS = Struct(f"<{_BLOCK}H")
_WORDS = tuple((word_id,) for word_id in WORD_IDS.values())
# Characters of one to four bytes. Each byte is a token, so the server has to reassemble the code points.
_SIGNS = tuple(tuple(sign.encode()) for sign in (",", ",", ".", "\n", "é", "ß", "€", "水", "🙂", "🚀"))
_MENU = (*_WORDS, *(_SIGNS * 8))


class TokenSource(Protocol):
    """The tokens of an answer, which are determined before the first one is generated."""

    def token(self, position: int) -> int:
        """The token at a position in the answer, counted from 0."""
        ...


class DrawnTokens:
    """An answer of words and punctuation. It is drawn in blocks, so that each position is found quickly."""

    def __init__(self, key: bytes, end: int, *, ignore_eos: bool) -> None:
        """From the position `end` on, all tokens are end-of-sequence, unless it is ignored."""
        self._key = key
        self._end = end
        self._ignore_eos = ignore_eos
        self._index = -1
        self._block: list[int] = []

    def token(self, position: int) -> int:
        if position >= self._end and not self._ignore_eos:
            return END_OF_SEQUENCE
        index = position // _BLOCK
        if index != self._index:
            self._index = index
            self._block = self._draw(index)
        return self._block[position % _BLOCK]

    def _draw(self, index: int) -> list[int]:
        # Neither the block nor the answer ends within a character.
        end = self._end - index * _BLOCK
        block: list[int] = []
        for value in _DRAWS.unpack(blake2b(index.to_bytes(8), key=self._key).digest()):
            entry = _MENU[value % len(_MENU)]
            after = len(block) + len(entry)
            if after > _BLOCK or len(block) < end < after:
                entry = _WORDS[value % len(_WORDS)]
            block += entry
            if len(block) == _BLOCK:
                break
        return block


class FixedTokens:
    """An answer with the given tokens, followed by end-of-sequence."""

    def __init__(self, ids: list[int]) -> None:
        self._ids = ids

    def token(self, position: int) -> int:
        return self._ids[position] if position < len(self._ids) else END_OF_SEQUENCE


def prompt_digest(prompt_ids: Sequence[int]) -> bytes:
    """The digest of a prompt, on which all random choices for it depend."""
    return blake2b(pack(f"<{len(prompt_ids)}I", *prompt_ids), digest_size=32).digest()


def source_key(digest: bytes, adapter: str, sampling: Sampling) -> bytes:
    """The key on which the tokens of an answer depend.

    As in a real model, at temperature 0 the penalties are the only sampling settings that matter.
    """
    choice = pack("<3d", sampling.frequency_penalty, sampling.presence_penalty, sampling.repetition_penalty)
    if sampling.temperature > 0:
        choice += pack("<3d", sampling.temperature, sampling.top_p, sampling.min_p)
        choice += pack("<2Q", sampling.top_k, sampling.seed)
    return blake2b(choice + adapter.encode(), key=digest).digest()


def pick(digest: bytes, count: int) -> int:
    """Chooses an index below `count` by the prompt."""
    return int.from_bytes(digest[:8]) % count
