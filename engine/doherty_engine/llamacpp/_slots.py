"""Chooses llama.cpp's slot for each request, so that no caller can use or detect what another caller has cached.

llama.cpp itself would choose the slot whose tokens are most similar to the prompt, whichever caller sent them. When its
KV cache is full, it would empty the free slot with the lowest number, whoever used it last.
"""

from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple

_MIN_SHARED = 0.1
"""A slot is reused for a prompt only if they share this part of the shorter one of the two. Otherwise the rest of the
slot's cache is worth more. llama.cpp's default for `slot_prompt_similarity` is the same number."""


@dataclass(slots=True, eq=False)
class Slot:
    """A slot, and the tokens that it processed last."""

    number: int
    salt: str | None = None
    """The cache salt (`EngineRequest.cache_salt`) of the request that filled its cache; None if it is not known."""
    tokens: tuple[int, ...] = ()
    """What it processed last of a prompt and prefix; while it is taken, what it will process."""
    generated: int = 0
    """How many generated tokens may follow them in the cache."""
    used: int = 0
    """The number of its last use, counted over all slots; 0 means never used."""

    @property
    def cells(self) -> int:
        """How many cells of the KV cache it uses at most."""
        return len(self.tokens) + self.generated


class Taken(NamedTuple):
    """A slot that was taken for a request."""

    slot: Slot
    cached: int | None
    """How many of the request's tokens are in its cache at most; None if the request must not reuse its cache."""
    full: tuple[int, ...]
    """The numbers of free slots that must be emptied before, because there is no room for the request's tokens."""


class Slots:
    """All slots, some of which are free; thread-safe."""

    def __init__(self, count: int, cells: int) -> None:
        """`cells` is the size of the KV cache, which all slots share, in tokens."""
        self._all = tuple(Slot(number) for number in range(count))
        self._free = list(self._all)
        self._cells = cells
        self._uses = 0
        self._lock = Lock()

    def take(self, salt: str, tokens: tuple[int, ...]) -> Taken:
        """Takes the best free slot for a request. There always is one, because there are as many slots as threads.

        Args:
            salt: The cache salt of the request.
            tokens: The tokens that the request will process.
        """
        with self._lock:
            slot = self._find(salt, tokens)
            self._free.remove(slot)
            self._uses += 1
            slot.used = self._uses
            cached = None
            if slot.salt == salt:
                shared = _shared_prefix(slot.tokens, tokens)
                cached = shared + slot.generated if shared == len(slot.tokens) else shared
            slot.salt, slot.tokens, slot.generated = salt, tokens, 0
            return Taken(slot, cached, self._make_room(salt))

    def give_back(self, slot: Slot, tokens: tuple[int, ...], generated: int, *, holds_others: bool = False) -> None:
        """Returns a slot to the free ones.

        Args:
            slot: The slot.
            tokens: The tokens that it has processed.
            generated: How many it has generated behind them.
            holds_others: Whether it may still hold the tokens of a request with another salt. Then no request may reuse
                its cache.
        """
        with self._lock:
            if holds_others:
                slot.salt = None
            slot.tokens, slot.generated = tokens, generated
            self._free.append(slot)

    def _make_room(self, salt: str) -> tuple[int, ...]:
        """Empties free slots, those of the same salt first, and of these the least recently used ones.

        Running answers also need cells, but nobody knows how many. If there are none left, llama.cpp empties a slot. It
        does not say which one, so the cells of that slot count until its next use, and another slot may be emptied in
        vain.
        """
        missing = sum(slot.cells for slot in self._all) - self._cells
        emptied: list[int] = []
        for slot in sorted(self._free, key=lambda slot: (slot.salt != salt, slot.used)):
            if missing <= 0:
                break
            if slot.cells:
                missing -= slot.cells
                slot.tokens, slot.generated = (), 0
                emptied.append(slot.number)
        return tuple(emptied)

    def _find(self, salt: str, tokens: tuple[int, ...]) -> Slot:
        """The slot that shares the longest prefix with the tokens; if none shares enough, the least recently used."""
        best, longest = None, 0
        for slot in self._free:
            if slot.salt == salt:
                shared = _shared_prefix(slot.tokens, tokens)
                if shared > longest and shared >= _MIN_SHARED * min(len(slot.tokens), len(tokens)):
                    best, longest = slot, shared
        return best or min(self._free, key=lambda slot: slot.used)


def _shared_prefix(left: tuple[int, ...], right: tuple[int, ...]) -> int:
    """The length of the common prefix, by binary search: comparing slices is fast, because it happens in C."""
    equal, longest = 0, min(len(left), len(right))
    while equal < longest:
        middle = (equal + longest + 1) // 2
        if left[equal:middle] == right[equal:middle]:
            equal = middle
        else:
            longest = middle - 1
    return equal
