"""Chooses how much of a prompt is computed at a time, so that running answers do not wait long for their next token."""

import time
from dataclasses import dataclass
from threading import Lock

from doherty_engine.llamacpp._server import BATCH_TOKENS

_STEP_SECONDS = 0.085
"""How long a step should take in which running answers get a token, and a piece of a prompt is computed. The piece may
take as long as the answers' part of the step even if that is longer: with less, a slow model would hardly get on with
the prompt."""

_TOKENS_OF_A_COST = 512
"""The time for a token grows with the tokens before it, so it is estimated separately for each so many of them."""

_UNKNOWN_COST = 0.0125
"""Seconds per token of a prompt until one was measured: as with SmolLM2-135M and one thread."""

_WEIGHT = 0.25
"""How much a new measurement counts in an estimate."""


@dataclass(frozen=True, slots=True)
class Step:
    """The end of a step in which an answer got a token."""

    at: float
    """By `time.monotonic()`."""
    pieces: int
    """`PromptPace._pieces` at that time."""
    answers: int
    """How many answers ran."""


class PromptPace:
    """Measures pieces of prompts beside running answers, and chooses the size of the next piece; thread-safe.

    One piece is computed at a time, by the request that has the turn.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._answers = 0
        self._pieces = 0
        """How often a piece was begun or ended, so it is odd while one is computed."""
        self._steps: dict[int, float] = {}
        """By number of answers, how many seconds a step takes in which each gets a token, and no prompt is computed."""
        self._costs: dict[int, float] = {}
        """Seconds for a token of a prompt, in addition to a step of the answers."""

    def answer_begins(self) -> None:
        """Notes that an answer has its first token, and waits for further ones."""
        with self._lock:
            self._answers += 1

    def answer_ends(self) -> None:
        """Notes that such an answer has ended."""
        with self._lock:
            self._answers -= 1

    def piece_tokens(self, before: int) -> int:
        """How many tokens the next piece should have, at least one; `before` is the number of tokens before it."""
        with self._lock:
            if not self._answers:
                return BATCH_TOKENS
            step = self._step()
            fitting = int(max(_STEP_SECONDS - step, step) / (self._cost(before) or _UNKNOWN_COST))
        return min(BATCH_TOKENS, max(1, fitting))

    def begin_piece(self) -> None:
        """Notes that llama.cpp begins to compute a piece."""
        with self._lock:
            self._pieces += 1

    def end_piece(self, before: int, tokens: int, seconds: float) -> None:
        """Notes the end of a piece.

        Args:
            before: The number of tokens before the piece.
            tokens: The number of its tokens; 0 if it was not measured.
            seconds: How long its step took, including the answers' part of it.
        """
        with self._lock:
            self._pieces += 1
            # Larger batches without answers take less time per token.
            if not (tokens and self._answers):
                return
            # The step of the answers is only an estimate, which may be too high.
            measured = max(seconds - self._step(), seconds / 4) / tokens
            known = self._cost(before) or measured
            self._costs[before // _TOKENS_OF_A_COST] = known + _WEIGHT * (measured - known)

    def note_step(self, last: Step | None) -> Step:
        """Notes that an answer got a token. `last` is the result for its token before."""
        with self._lock:
            step = Step(time.monotonic(), self._pieces, self._answers)
            if last is not None and (last.pieces, last.answers) == (step.pieces, step.answers) and not step.pieces % 2:
                seconds = step.at - last.at
                known = self._steps.get(step.answers, seconds)
                self._steps[step.answers] = known + _WEIGHT * (seconds - known)
            return step

    def _step(self) -> float:
        """The estimate for a step of the answers that run now, from the nearest number of answers that was measured.

        A step has a fixed part, which takes about as long as the part of one answer: with SmolLM2-135M, a step of one
        answer takes 17 ms, of five 57 ms, of seven 77 ms.
        """
        if not self._steps:
            return 0.0
        nearest = min(self._steps, key=lambda answers: abs(answers - self._answers))
        return self._steps[nearest] * (self._answers + 1) / (nearest + 1)

    def _cost(self, before: int) -> float | None:
        """The estimate for the nearest place that is not further behind; None if there is none."""
        place = before // _TOKENS_OF_A_COST
        return next((self._costs[index] for index in range(place, -1, -1) if index in self._costs), None)
