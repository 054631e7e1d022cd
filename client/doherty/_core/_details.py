"""What an answer tells besides its text where it is asked for, or where an engine has it."""

from dataclasses import dataclass

from doherty._core._result import Result


@dataclass(frozen=True, slots=True)
class TopLogprob(Result):
    """One of the most probable tokens at some place."""

    token_id: int
    token: bytes
    """Its bytes, which need not be a whole code point."""
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprob(Result):
    """The log probability of one generated token."""

    token_id: int
    token: bytes
    """Its bytes, which need not be a whole code point."""
    logprob: float
    top: tuple[TopLogprob, ...]
    """The most probable tokens at this place, the most probable one first; as many as were asked for."""


@dataclass(frozen=True, slots=True)
class Speculation(Result):
    """What speculative decoding contributed to an answer."""

    steps: int
    draft_tokens: int
    accepted_tokens: int
