"""Control tokens that a text spells out, as `<|im_end|>`.

Where they were read as control tokens, whoever writes one message of a conversation could forge others.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

Encode = Callable[[str], Sequence[int]]
"""Splits a text into tokens."""

_LOOK = re.compile(r"<\|.+\|>|<\uff5c.+\uff5c>", re.DOTALL)


def looks_like_control(token: str) -> bool:
    """Whether a token is spelled as control tokens are, whatever its vocabulary calls it."""
    return _LOOK.fullmatch(token) is not None


class ControlTokens:
    """The control tokens of a vocabulary."""

    def __init__(self, ids: Mapping[str, int]) -> None:
        """`ids` are their ids by how they are spelled."""
        self._ids = frozenset(ids.values())
        # The longest first, as tokenizers match them. Without any, a pattern that matches nothing.
        longest_first = sorted(filter(None, ids), key=len, reverse=True)
        self._pattern = re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})")

    def count(self, texts: Iterable[str]) -> int:
        """How many control tokens some texts spell out."""
        return sum(sum(1 for _ in self._pattern.finditer(text)) for text in texts)

    def split(self, text: str) -> list[str]:
        """The parts of a text: the second one, and each second one behind it, spells a control token."""
        return self._pattern.split(text)

    def surround(self, text: str, mark: str) -> str:
        """Puts a mark before and behind each control token that a text spells out."""
        return self._pattern.sub(lambda match: f"{mark}{match[0]}{mark}", text)

    def encode_as_text(self, spelled: str, encode: Encode) -> list[int]:
        """The tokens of a control token's spelling, none of them a control token.

        Args:
            spelled: the spelling.
            encode: takes control tokens for text, as far as the tokenizer can.
        """
        for parts in ((spelled,), (spelled[:1], spelled[1:])):  # some vocabularies merge the letters to the token again
            ids = [token_id for part in parts if part for token_id in encode(part)]
            if self._ids.isdisjoint(ids):
                return ids
        return [token_id for token_id in ids if token_id not in self._ids]


def encode_exactly(text: str, encode: Encode, decode: Callable[[Sequence[int]], bytes]) -> list[int]:
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
