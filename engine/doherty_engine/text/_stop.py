"""Finds stop texts in an answer while it comes, across the borders of tokens."""

from collections import deque
from collections.abc import Sequence

from doherty_engine.text._pieces import Piece


class StopMatcher:
    """Lets pieces through as soon as no stop text can begin in them, and cuts the answer where one is complete.

    Pieces are held back and released whole, so that the ids of what is released are those of its text. Only the piece
    in which a stop text begins loses text, and those behind it all of theirs; they keep their ids.
    """

    def __init__(self, stop_texts: Sequence[str], *, include_stop_text: bool = False) -> None:
        self._searches = [_Search(stop) for stop in dict.fromkeys(stop_texts)]
        self._include = include_stop_text
        self._pending: deque[Piece] = deque()
        self._pending_length = 0
        self.matched: str | None = None
        """The stop text that ended the answer."""

    def prime(self, text: str, *, may_end: bool = True) -> None:
        """Takes text that the caller already has, before any piece: a stop text may begin in it, or be complete."""
        if self.matched is None:
            self._advance(text, may_end=may_end)

    def feed(self, piece: Piece, *, may_end: bool = True) -> list[Piece]:
        """Takes the next piece, and returns those that are decided.

        With `may_end` false a stop text that becomes complete is let through. Once `matched` is set, what is returned
        is the last of the answer, and nothing more may be fed.
        """
        if not self._searches:
            return [piece]
        self._pending.append(piece)
        self._pending_length += len(piece.text)
        end = self._advance(piece.text, may_end=may_end)
        if self.matched is None:
            return self._release(max(search.matched_length for search in self._searches))
        kept = end if self._include else end - len(self.matched)
        return self._cut(len(piece.text) - kept)

    def flush(self) -> list[Piece]:
        """Returns what is still held back, at the end of an answer that no stop text ended."""
        return self._release(0)

    def _advance(self, text: str, *, may_end: bool) -> int:
        """Reads more text; where a stop text may end the answer, sets `matched` and returns its end in `text`.

        The one that is complete first wins; of those that end together, the longest.
        """
        best: tuple[int, int, str] | None = None
        for search in self._searches:
            end = search.advance(text, may_end=may_end)
            if end and (best is None or (end, -len(search.stop)) < best[:2]):
                best = (end, -len(search.stop), search.stop)
        if best is None:
            return 0
        self.matched = best[2]
        return best[0]

    def _release(self, undecided: int) -> list[Piece]:
        """Lets go of the pieces that lie wholly before the last `undecided` characters."""
        released: list[Piece] = []
        while self._pending and self._pending_length - len(self._pending[0].text) >= undecided:
            piece = self._pending.popleft()
            self._pending_length -= len(piece.text)
            released.append(piece)
        return released

    def _cut(self, surplus: int) -> list[Piece]:
        """Lets go of everything, without the last `surplus` characters."""
        released = self.flush()
        for index in range(len(released) - 1, -1, -1):
            if surplus <= 0:
                break
            text = released[index].text
            released[index] = released[index]._replace(text=text[: max(0, len(text) - surplus)])
            surplus -= len(text)
        return released


class _Search:
    """Looks for one stop text, each character once, however long it is and however it repeats (Knuth-Morris-Pratt)."""

    def __init__(self, stop: str) -> None:
        self.stop = stop
        self.matched_length = 0
        """How many characters at the end of the text so far are the beginning of the stop text."""
        # How much of the stop text still stands at the end when the character behind its first n does not fit.
        self._fallback = [0] * (len(stop) + 1)
        length = 0
        for index in range(1, len(stop)):
            while length and stop[index] != stop[length]:
                length = self._fallback[length]
            if stop[index] == stop[length]:
                length += 1
            self._fallback[index + 1] = length

    def advance(self, text: str, *, may_end: bool) -> int:
        """Reads more text; returns the index behind the first complete stop text if it `may_end` the answer, or 0."""
        stop, fallback, matched_length = self.stop, self._fallback, self.matched_length
        index = 0
        while index < len(text):
            if not matched_length:
                index = text.find(stop[0], index)
                if index < 0:
                    break
            while matched_length and stop[matched_length] != text[index]:
                matched_length = fallback[matched_length]
            if stop[matched_length] == text[index]:
                matched_length += 1
            index += 1
            if matched_length == len(stop):
                if may_end:
                    return index
                matched_length = fallback[matched_length]
        self.matched_length = matched_length
        return 0
