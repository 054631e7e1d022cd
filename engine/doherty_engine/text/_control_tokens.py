"""Handles control tokens that a text spells out, such as `<|im_end|>`.

They must be encoded as plain text. Otherwise, the author of one message of a conversation could forge other messages.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

Encode = Callable[[str], Sequence[int]]
"""Tokenizes a text."""
Decode = Callable[[Sequence[int]], bytes]
"""Returns the bytes of tokens; control tokens have none."""

_LOOK = re.compile(r"<\|.+\|>|<\uff5c.+\uff5c>", re.DOTALL)


def looks_like_control(token: str) -> bool:
    """Whether a token is spelled like a control token, whatever type the vocabulary gives it."""
    return _LOOK.fullmatch(token) is not None


class ControlTokens:
    """The control tokens of a vocabulary."""

    def __init__(self, ids: Mapping[str, int]) -> None:
        """`ids` maps the spelling of each control token to its id."""
        self._ids = frozenset(ids.values())
        self._spellings = frozenset(filter(None, ids))
        self._pattern = re.compile(f"({_any_of(self._spellings) if self._spellings else '(?!)'})")
        self._as_text: dict[str, list[int]] = {}

    def count(self, texts: Iterable[str]) -> int:
        """The number of control tokens that the texts spell out."""
        if not self._spellings:
            return 0
        return sum(sum(1 for _ in self._pattern.finditer(text)) for text in texts)

    def split(self, text: str) -> list[str]:
        """Splits a text; every second part, starting with the second, spells a control token."""
        return self._pattern.split(text)

    def surround(self, text: str, marker: str) -> str:
        """Puts a marker before and after each control token that a text spells out."""
        return self._pattern.sub(lambda match: f"{marker}{match[0]}{marker}", text)

    def encode_as_text(self, spelled: str, encode: Encode, decode: Decode) -> list[int]:
        """Encodes the spelling of a control token without using any control token.

        Args:
            spelled: The spelling, possibly changed by a template.
            encode: Encodes control tokens as text, as far as the tokenizer can do that.
            decode: Returns the bytes of tokens.
        """
        ids = self._as_text.get(spelled)
        if ids is None:
            ids = self._encode_letters(spelled, encode, decode)
            if spelled in self._spellings:
                self._as_text[spelled] = ids
        return ids

    def encode_answer(self, parts: Sequence[str], encode: Encode, encode_plain: Encode, decode: Decode) -> list[int]:
        """Encodes a part of an answer. Control tokens in its text were generated as plain text.

        Args:
            parts: The result of `split`.
            encode: Recognizes added tokens.
            encode_plain: Encodes control tokens as text, as far as the tokenizer can do that.
            decode: Returns the bytes of tokens.

        Raises:
            ValueError: The tokenizer changes this text.
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
        halves = (spelled[:1], spelled[1:])  # some vocabularies merge all letters into the control token again
        for parts in ((spelled,), halves):
            with suppress(ValueError):
                ids = [token_id for part in parts if part for token_id in encode_exactly(part, encode, decode)]
                if self._ids.isdisjoint(ids):
                    return ids
        # Only tokenizers that change every text get here.
        return [token_id for part in halves for token_id in encode(part) if token_id not in self._ids]


def encode_exactly(text: str, encode: Encode, decode: Decode) -> list[int]:
    """Tokenizes a text that is a part of another text.

    Raises:
        ValueError: The tokenizer changes this text.
    """
    ids = list(encode(text))
    if decode(ids) == text.encode():
        return ids
    # SentencePiece puts a space before every text. So encode the text after a line break, and remove its tokens again.
    line_break = list(encode("\n"))
    ids = list(encode(f"\n{text}"))
    rest = ids[len(line_break) :]
    if ids[: len(line_break)] != line_break or decode(rest) != text.encode():
        raise ValueError("the tokenizer changes this text")
    return rest


def _any_of(texts: Iterable[str]) -> str:
    """Writes a pattern that matches the longest possible of the texts; it is a trie, which branches at each letter.

    A plain list of alternatives would be tried one by one at each "<" of a prompt. There can be hundreds, so a megabyte
    of "<" would take a second, during which the GIL is held.
    """
    rests: dict[str, list[str]] = {}
    for text in texts:
        rests.setdefault(text[:1], []).append(text[1:])
    may_end = rests.pop("", None) is not None
    branches = [re.escape(letter) + _any_of(rest) for letter, rest in rests.items()]
    if len(branches) == 1 and not may_end:
        return branches[0]
    return f"(?:{'|'.join(branches)}){'?' if may_end else ''}" if branches else ""
