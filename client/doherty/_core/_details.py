"""What an answer tells besides its text where it is asked for, or where an engine has it."""

from dataclasses import dataclass

from doherty._core._result import Result


@dataclass(frozen=True, slots=True)
class TopLogprob(Result):
    """One of the most probable tokens at some place."""

    token_id: int = 0
    token: bytes = b""
    """Its bytes, which need not be a whole code point."""
    logprob: float = 0.0


@dataclass(frozen=True, slots=True)
class TokenLogprob(Result):
    """The log probability of one generated token."""

    token_id: int = 0
    token: bytes = b""
    """Its bytes, which need not be a whole code point."""
    logprob: float = 0.0
    top: tuple[TopLogprob, ...] = ()
    """The most probable tokens at this place, the most probable one first; as many as were asked for."""


@dataclass(frozen=True, slots=True)
class Speculation(Result):
    """What speculative decoding contributed to an answer."""

    steps: int = 0
    draft_tokens: int = 0
    accepted_tokens: int = 0
