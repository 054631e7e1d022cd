"""Control tokens that a text spells out, as `<|im_end|>`.

Where they were read as control tokens, whoever writes one message of a conversation could forge others.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

Encode = Callable[[str], Sequence[int]]
"""Splits a text into tokens."""
Decode = Callable[[Sequence[int]], bytes]
"""The bytes of tokens, none for those of control tokens."""

_LOOK = re.compile(r"<\|.+\|>|<\uff5c.+\uff5c>", re.DOTALL)


def looks_like_control(token: str) -> bool:
    """Whether a token is spelled as control tokens are, whatever its vocabulary calls it."""
    return _LOOK.fullmatch(token) is not None


class ControlTokens:
    """The control tokens of a vocabulary."""

    def __init__(self, ids: Mapping[str, int]) -> None:
        """`ids` are their ids by how they are spelled."""
        self._ids = frozenset(ids.values())
        self._spellings = frozenset(filter(None, ids))
        self._pattern = re.compile(f"({_any_of(self._spellings) if self._spellings else '(?!)'})")
        self._as_text: dict[str, list[int]] = {}

    def count(self, texts: Iterable[str]) -> int:
        """How many control tokens some texts spell out."""
        if not self._spellings:
            return 0
        return sum(sum(1 for _ in self._pattern.finditer(text)) for text in texts)

    def split(self, text: str) -> list[str]:
        """The parts of a text: the second one, and each second one behind it, spells a control token."""
        return self._pattern.split(text)

    def surround(self, text: str, mark: str) -> str:
        """Puts a mark before and behind each control token that a text spells out."""
        return self._pattern.sub(lambda match: f"{mark}{match[0]}{mark}", text)

    def encode_as_text(self, spelled: str, encode: Encode, decode: Decode) -> list[int]:
        """The tokens of what spells a control token, none of them a control token.

        Args:
            spelled: the spelling, or what a template made of it.
            encode: takes control tokens for text, as far as the tokenizer can.
            decode: gives the bytes of tokens.
        """
        ids = self._as_text.get(spelled)
        if ids is None:
            ids = self._encode_letters(spelled, encode, decode)
            if spelled in self._spellings:
                self._as_text[spelled] = ids
        return ids

    def encode_answer(self, parts: Sequence[str], encode: Encode, encode_plain: Encode, decode: Decode) -> list[int]:
        """The tokens of a part of an answer, which the model wrote letter by letter where it spells control tokens.

        Args:
            parts: what `split` made of it.
            encode: takes added tokens for what they are.
            encode_plain: takes control tokens for text, as far as the tokenizer can.
            decode: gives the bytes of tokens.

        Raises:
            ValueError: the tokenizer changes this text.
        """
        ids: list[int] = []
        for index, part in enumerate(parts):
            if index % 2:
                ids += self.encode_as_text(part, encode_plain, decode)
            else:
                ids += encode_exactly(part, encode, decode)
        if decode(ids) != "".join(parts).encode():
            raise ValueError("the tokenizer changes this text")
        return ids

    def _encode_letters(self, spelled: str, encode: Encode, decode: Decode) -> list[int]:
        halves = (spelled[:1], spelled[1:])  # some vocabularies merge the letters to the token again
        for parts in ((spelled,), halves):
            with suppress(ValueError):
                ids = [token_id for part in parts if part for token_id in encode_exactly(part, encode, decode)]
                if self._ids.isdisjoint(ids):
                    return ids
        # A tokenizer that changes every text.
        return [token_id for part in halves for token_id in encode(part) if token_id not in self._ids]


def encode_exactly(text: str, encode: Encode, decode: Decode) -> list[int]:
    """The tokens of a text that stands within another one.

    Raises:
        ValueError: the tokenizer changes this text.
    """
    ids = list(encode(text))
    if decode(ids) == text.encode():
        return ids
    # SentencePiece puts a space before every text: so it is put before something else, which is taken off again.
    before = list(encode("\n"))
    ids = list(encode(f"\n{text}"))
    rest = ids[len(before) :]
    if ids[: len(before)] != before or decode(rest) != text.encode():
        raise ValueError("the tokenizer changes this text")
    return rest


def _any_of(texts: Iterable[str]) -> str:
    """A pattern that matches the longest of some texts, letter by letter.

    With an alternative for each text, hundreds of them would be tried at each "<" of a prompt. A megabyte of those
    would take a second, with the interpreter's lock held.
    """
    rests: dict[str, list[str]] = {}
    for text in texts:
        rests.setdefault(text[:1], []).append(text[1:])
    may_end = rests.pop("", None) is not None
    branches = [re.escape(letter) + _any_of(rest) for letter, rest in rests.items()]
    if len(branches) == 1 and not may_end:
        return branches[0]
    return f"(?:{'|'.join(branches)}){'?' if may_end else ''}" if branches else ""
