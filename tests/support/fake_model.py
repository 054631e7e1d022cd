"""A language model without weights, for the fakes of engines: its next token is a function of all tokens before it.

So an answer goes on behind a held part as it would have without an interruption. It says words and signs of its
tokenizer, signs of several tokens included, and ends after some dozens of tokens.
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
"""How many tokens an answer has at least; at most it has twice as many."""


class FakeModel:
    """A model that is known by its folder."""

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
        """The token behind `ids`.

        Args:
            ids: the prompt and the answer so far.
            settings: what of the request's sampling and adapter matters.
            banned: tokens that must not come, as before the minimum of an answer.
            allowed: the only tokens that a constraint lets through.
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
        """The log probabilities of a token behind `ids`, which is the most probable one, and of `most` at its place."""
        draw = _draw(ids, b"others")
        found = {token_id: -0.25}
        while len(found) < most:
            found.setdefault(self._words[draw % len(self._words)], -1.0 - len(found))
            draw = draw // 2 + 12_345
        return found

    def _is_word(self, token_id: int) -> bool:
        if token_id in self._special:
            return False
        text: str = self.tokenizer.decode([token_id], skip_special_tokens=False)
        return bool(text.strip()) and text.isprintable() and "\N{REPLACEMENT CHARACTER}" not in text

    def _ends(self, ids: Sequence[int]) -> bool:
        """Whether an answer may end here: so many tokens behind the last special one, which ends a chat template."""
        start = next((place for place in range(len(ids), 0, -1) if ids[place - 1] in self._special), 0)
        length = _SHORTEST + _draw(ids[:start], b"length") % _SHORTEST
        return (len(ids) - start) % length == length - 1

    def _fitting(self, draw: int, allowed: Sequence[int]) -> int:
        """Ends where that is possible, and says no spaces where it can say something else."""
        ends = [token_id for token_id in allowed if token_id in self.eos_ids]
        if ends:
            return ends[0]
        said = [one for one in allowed if self.tokenizer.decode([one]).strip()] or list(allowed)
        return said[draw % len(said)]


def _draw(ids: Sequence[int], settings: bytes) -> int:
    return int.from_bytes(blake2b(pack(f"<{len(ids)}I", *ids), key=blake2b(settings).digest(), digest_size=8).digest())


def _begins(sign: Sequence[int], ids: Sequence[int]) -> int:
    """How many tokens of a sign stand at the end of `ids`, if it has begun and is not complete."""
    counts = range(len(sign) - 1, 0, -1)
    return next((count for count in counts if list(ids[-count:]) == list(sign[:count])), 0)


def _eos_ids(folder: Path) -> tuple[int, ...]:
    path = folder / "generation_config.json"
    said = json.loads(path.read_text()).get("eos_token_id") if path.exists() else None
    return tuple(said) if isinstance(said, list) else () if said is None else (said,)
