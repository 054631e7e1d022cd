"""Chooses llama.cpp's slot for each request, so that no caller can use or detect what another caller has cached.

llama.cpp itself would choose the slot whose tokens are most similar to the prompt, whichever caller sent them.
"""

from dataclasses import dataclass
from threading import Lock

_MIN_SHARED = 0.1
"""A slot is reused for a prompt only if they share this part of the shorter one of the two. Otherwise the rest of the
slot's cache is worth more. llama.cpp's default for `slot_prompt_similarity` is the same number."""


@dataclass(slots=True, eq=False)
class Slot:
    """A slot, and the tokens that it processed last."""

    number: int
    salt: str = ""
    """The cache salt (`EngineRequest.cache_salt`) of the request that filled its cache."""
    tokens: tuple[int, ...] = ()
    """The prompt and prefix that it processed last. In the cache, the generated tokens follow them."""
    used: int = 0
    """The number of its last use, counted over all slots; 0 means never used."""


class Slots:
    """The free slots; thread-safe."""

    def __init__(self, count: int) -> None:
        self._free = [Slot(number) for number in range(count)]
        self._uses = 0
        self._lock = Lock()

    def take(self, salt: str, tokens: tuple[int, ...]) -> tuple[Slot, bool]:
        """Takes the best free slot for a request. There always is one, because there are as many slots as threads.

        Args:
            salt: The cache salt of the request.
            tokens: The tokens that the request will process.

        Returns:
            The slot, and whether the request may reuse its cache.
        """
        with self._lock:
            slot = self._find(salt, tokens)
            self._free.remove(slot)
            self._uses += 1
            may_reuse = slot.salt == salt
            slot.salt, slot.tokens, slot.used = salt, tokens, self._uses
            return slot, may_reuse

    def give_back(self, slot: Slot) -> None:
        """Returns a slot to the free ones."""
        with self._lock:
            self._free.append(slot)

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
