"""A language model without weights, for the fakes of engines: its next token is a function of all tokens before it.

Therefore, an answer that continues from a prefix is the same as without an interruption. The model generates words and
symbols of its tokenizer, including symbols of several tokens, and its answers end after some dozens of tokens.
"""

import json
from collections.abc import Collection, Sequence
from hashlib import blake2b
from pathlib import Path
from struct import pack
from typing import Any

from tokenizers import Tokenizer

_SIGNS = ("é", "€", "水", "🙂", "🚀", "🫠")
_SHORTEST = 40
"""The minimum number of tokens of an answer; the maximum is twice as much."""


class FakeModel:
    """A model that is defined by the files in its folder."""

    def __init__(self, folder: Path) -> None:
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.vocabulary_size: int = self.config["vocab_size"]
        self._special = {
            token_id for token_id, token in self.tokenizer.get_added_tokens_decoder().items() if token.special
        }
        self._words = [token_id for token_id in range(self.vocabulary_size) if self._is_word(token_id)]
        encoded = (self.tokenizer.encode(sign, add_special_tokens=False).ids for sign in _SIGNS)
        self._signs = [ids for ids in encoded if len(ids) > 1]
        self.eos_ids = _eos_ids(folder)

    def next(
        self,
        ids: Sequence[int],
        settings: bytes = b"",
        *,
        banned: Collection[int] = (),
        allowed: Sequence[int] | None = None,
    ) -> int:
        """Returns the token that follows `ids`.

        Args:
            ids: The prompt and the answer so far.
            settings: The settings of the request that change the answer, such as its seed and adapter.
            banned: Tokens that must not be chosen, such as the end before an answer has its minimum length.
            allowed: The tokens that a constraint allows; None without a constraint.
        """
        draw = _draw(ids, settings)
        if allowed is not None:
            return self._fitting(draw, allowed)
        begun = next((sign for sign in self._signs if _begins(sign, ids)), None)
        if begun is not None:
            return begun[_begins(begun, ids)]
        if self.eos_ids and self._ends(ids) and not set(self.eos_ids) & set(banned):
            return self.eos_ids[draw % len(self.eos_ids)]
        if draw % 8 == 0 and self._signs:
            return self._signs[draw // 8 % len(self._signs)][0]
        words = self._words if not banned else [word for word in self._words if word not in banned]
        return words[draw // 8 % len(words)]

    def logprobs(self, ids: Sequence[int], token_id: int, most: int) -> dict[int, float]:
        """Returns log probabilities of `token_id`, the most probable token after `ids`, and others: `most` in all."""
        draw = _draw(ids, b"others")
        logprobs = {token_id: -0.25}
        while len(logprobs) < most:
            logprobs.setdefault(self._words[draw % len(self._words)], -1.0 - len(logprobs))
            draw = draw // 2 + 12_345
        return logprobs

    def _is_word(self, token_id: int) -> bool:
        if token_id in self._special:
            return False
        text: str = self.tokenizer.decode([token_id], skip_special_tokens=False)
        return bool(text.strip()) and text.isprintable() and "\N{REPLACEMENT CHARACTER}" not in text

    def _ends(self, ids: Sequence[int]) -> bool:
        """Whether the answer ends here, which its number of tokens after the last special token decides."""
        start = next((place for place in range(len(ids), 0, -1) if ids[place - 1] in self._special), 0)
        length = _SHORTEST + _draw(ids[:start], b"length") % _SHORTEST
        return (len(ids) - start) % length == length - 1

    def _fitting(self, draw: int, allowed: Sequence[int]) -> int:
        """Ends the answer if possible, and otherwise chooses visible text if it can."""
        ends = [token_id for token_id in allowed if token_id in self.eos_ids]
        if ends:
            return ends[0]
        visible = [token_id for token_id in allowed if self.tokenizer.decode([token_id]).strip()] or list(allowed)
        return visible[draw % len(visible)]


def _draw(ids: Sequence[int], settings: bytes) -> int:
    return int.from_bytes(blake2b(pack(f"<{len(ids)}I", *ids), key=blake2b(settings).digest(), digest_size=8).digest())


def _begins(sign: Sequence[int], ids: Sequence[int]) -> int:
    """Counts the tokens of an incomplete sign at the end of `ids`; 0 if there are none."""
    counts = range(len(sign) - 1, 0, -1)
    return next((count for count in counts if list(ids[-count:]) == list(sign[:count])), 0)


def _eos_ids(folder: Path) -> tuple[int, ...]:
    path = folder / "generation_config.json"
    eos = json.loads(path.read_text()).get("eos_token_id") if path.exists() else None
    return tuple(eos) if isinstance(eos, list) else () if eos is None else (eos,)
