"""Chooses the slot of llama.cpp for each request, so that nobody gets to use, or to see, what another one's has cached.

llama.cpp itself would choose the slot whose tokens are most like the prompt, whoever they came from.
"""

from dataclasses import dataclass
from threading import Lock

_LEAST_SHARED = 0.1
"""Of the shorter one of a prompt and what a slot has read: less is not worth the loss of what the slot has besides.
llama.cpp's own `slot_prompt_similarity` is the same number."""


@dataclass(slots=True, eq=False)
class Slot:
    """A slot, and what it read last."""

    number: int
    salt: str = ""
    """Whose cached tokens it holds, as EngineRequest.cache_salt says."""
    tokens: tuple[int, ...] = ()
    """What it read last: the answer to it stands behind that in the cache."""
    used: int = 0
    """When it was used last, by a count of uses; 0 is never."""


class Slots:
    """The slots that are free; any thread may take one."""

    def __init__(self, count: int) -> None:
        self._free = [Slot(number) for number in range(count)]
        self._uses = 0
        self._lock = Lock()

    def take(self, salt: str, tokens: tuple[int, ...]) -> tuple[Slot, bool]:
        """Takes the slot for a request; there is a free one, for there is one for each thread.

        Args:
            salt: whose cached tokens may be used.
            tokens: what will be read.

        Returns:
            The slot, and whether what it has cached may be used.
        """
        with self._lock:
            slot = self._find(salt, tokens)
            self._free.remove(slot)
            self._uses += 1
            may_reuse = slot.salt == salt
            slot.salt, slot.tokens, slot.used = salt, tokens, self._uses
            return slot, may_reuse

    def give_back(self, slot: Slot) -> None:
        """Makes a slot free."""
        with self._lock:
            self._free.append(slot)

    def _find(self, salt: str, tokens: tuple[int, ...]) -> Slot:
        """The slot that shares the longest beginning with a prompt, else the one that was not used for longest."""
        best, most = None, 0
        for slot in self._free:
            if slot.salt == salt:
                shared = _shared(slot.tokens, tokens)
                if shared > most and shared >= _LEAST_SHARED * min(len(slot.tokens), len(tokens)):
                    best, most = slot, shared
        return best or min(self._free, key=lambda slot: slot.used)


def _shared(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How many tokens at the beginning are the same; halves the rest, for slices are compared in C."""
    same, most = 0, min(len(one), len(other))
    while same < most:
        middle = (same + most + 1) // 2
        if one[same:middle] == other[same:middle]:
            same = middle
        else:
            most = middle - 1
    return same
