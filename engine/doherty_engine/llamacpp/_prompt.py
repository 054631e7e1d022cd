"""Divides a prompt into pieces, so that other requests can compute theirs, and running answers go on, in between."""

from doherty_engine.llamacpp._pace import PromptPace
from doherty_engine.llamacpp._server import BATCH_TOKENS


class Prompt:
    """One prompt, followed by the prefix of the answer. llama.cpp finds the earlier pieces in the cache of the slot."""

    def __init__(self, tokens: tuple[int, ...], cached: int, pace: PromptPace) -> None:
        """`cached` is how many of the tokens are in the cache at most."""
        self._tokens = tokens
        self._pace = pace
        self._computed = cached
        self._end = 0
        """Where the current piece ends."""
        self._left: int | None = None
        """The tokens of the current piece that llama.cpp did not find in the cache; None until it reports them."""
        self._skipped = 0
        """Those that it does not compute, because they are too many for one batch."""
        self._is_computing = False
        self.has_begun = False
        """Whether llama.cpp has begun a piece, and thus has dropped what does not belong to this prompt."""
        self._is_lost = False
        """Whether llama.cpp no longer has the pieces that were computed before."""

    @property
    def computed(self) -> tuple[int, ...]:
        """The tokens that have been computed."""
        return self._tokens[: self._computed]

    @property
    def is_last_piece(self) -> bool:
        """Whether the answer follows the current piece."""
        return self._end == len(self._tokens)

    @property
    def is_complete(self) -> bool:
        """Whether all pieces have been computed."""
        return self.is_last_piece and not self._skipped

    def begin_piece(self) -> dict[str, object]:
        """Begins the next piece; returns its fields of llama.cpp's request."""
        # llama.cpp empties idle slots when the KV cache is full, also one that waits for its next piece. A prompt that
        # loses its beginning again and again would never be done, so the rest of it is one piece.
        size = len(self._tokens) if self._is_lost else self._pace.piece_tokens(self._computed)
        self._end = min(len(self._tokens), self._computed + size)
        self._left, self._skipped = None, 0
        fields: dict[str, object] = {"prompt": list(self._tokens[: self._end])}
        # llama.cpp would compile the grammar again for each piece, while all requests wait.
        return fields if self.is_last_piece else {**fields, "n_predict": 0, "grammar": ""}

    def take_progress(self, left: int, seconds: float) -> bool:
        """Takes llama.cpp's progress with the current piece.

        Args:
            left: The tokens of the piece that are not computed yet.
            seconds: For how long the piece has been computed.

        Returns:
            Whether llama.cpp must stop.
        """
        if self._left is None:
            # llama.cpp reports this at the start, and computes the first batch even if it must stop.
            self._left = left
            self._skipped = 0 if self._is_lost else max(0, left - BATCH_TOKENS)
            self._pace.begin_piece()
            self._is_computing = True
        elif self._is_computing and not left:
            self._is_computing = False
            self._pace.end_piece(self._end - self._left, 0 if self._is_lost else self._left, seconds)
        return self._skipped > 0

    def end_piece(self) -> None:
        """Notes that llama.cpp has returned."""
        if self._is_computing:  # it was stopped
            self._is_computing = False
            self._pace.end_piece(self._end, 0, 0.0)
        if self._left is None:
            return  # it failed, or was stopped before it began
        self._is_lost = self.has_begun and self._skipped > 0
        self.has_begun = True
        self._computed = self._end - self._skipped
