"""Searches an answer for stop texts while it is generated; a stop text may extend over several tokens."""

from collections import deque
from collections.abc import Sequence

from doherty_engine.text._pieces import Piece


class StopMatcher:
    """Releases pieces that cannot be part of a stop text any more, and cuts the answer at a complete stop text.

    Pieces are held back and released as a whole, so that the released ids are those of the released text. If a stop
    text ends the answer, its text is removed from the pieces that contain it, but they keep their ids.
    """

    def __init__(self, stop_texts: Sequence[str], *, include_stop_text: bool = False) -> None:
        self._searches = [_Search(stop) for stop in dict.fromkeys(stop_texts)]
        self._include = include_stop_text
        self._pending: deque[Piece] = deque()
        self._pending_length = 0
        self.matched: str | None = None
        """The stop text that ended the answer."""

    def prime(self, text: str, *, may_end: bool = True) -> None:
        """Adds text of the prefix, before any piece; a stop text may start in it or be complete in it."""
        if self.matched is None:
            self._advance(text, may_end=may_end)

    def feed(self, piece: Piece, *, may_end: bool = True) -> list[Piece]:
        """Adds the next piece; returns the pieces that are released.

        A stop text that is completed while `may_end` is false is ignored. Once `matched` is set, the returned pieces
        are the last ones, and `feed` must not be called again.
        """
        if not self._searches:
            return [piece]
        self._pending.append(piece)
        self._pending_length += len(piece.text)
        end = self._advance(piece.text, may_end=may_end)
        if self.matched is None:
            return self._release(max(search.matched_length for search in self._searches))
        answer_end = end if self._include else end - len(self.matched)
        return self._cut(len(piece.text) - answer_end)

    def flush(self) -> list[Piece]:
        """Releases all pieces, because no more text follows."""
        return self._release(0)

    def _advance(self, text: str, *, may_end: bool) -> int:
        """Searches `text`. If a stop text ends in it, sets `matched` and returns the index after it; else returns 0.

        The stop text that is completed first wins; if several end at the same index, the longest one wins.
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
        """Releases the pieces that end before the last `undecided` characters."""
        released: list[Piece] = []
        while self._pending and self._pending_length - len(self._pending[0].text) >= undecided:
            piece = self._pending.popleft()
            self._pending_length -= len(piece.text)
            released.append(piece)
        return released

    def _cut(self, surplus: int) -> list[Piece]:
        """Releases all pieces, and removes the last `surplus` characters from their texts."""
        released = self.flush()
        for index in range(len(released) - 1, -1, -1):
            if surplus <= 0:
                break
            text = released[index].text
            released[index] = released[index]._replace(text=text[: max(0, len(text) - surplus)])
            surplus -= len(text)
        return released


class _Search:
    """Searches for one stop text with the Knuth-Morris-Pratt algorithm, in linear time."""

    def __init__(self, stop: str) -> None:
        self.stop = stop
        self.matched_length = 0
        """The number of characters at the end of the text so far that match the start of the stop text."""
        # _fallback[n]: the matched length that remains if the first n characters match, but the next one does not.
        self._fallback = [0] * (len(stop) + 1)
        length = 0
        for index in range(1, len(stop)):
            while length and stop[index] != stop[length]:
                length = self._fallback[length]
            if stop[index] == stop[length]:
                length += 1
            self._fallback[index + 1] = length

    def advance(self, text: str, *, may_end: bool) -> int:
        """Searches more text.

        Returns the index after the first complete stop text; 0 if there is none, or if `may_end` is false.
        """
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
