"""The optional parts of an answer: log probabilities, and the counts of speculative decoding."""

from dataclasses import dataclass

from doherty._core._result import Result


@dataclass(frozen=True, slots=True)
class TopLogprob(Result):
    """One of the most probable tokens at a position."""

    token_id: int = 0
    token: bytes = b""
    """The bytes of the token, which may be only a part of a code point."""
    logprob: float = 0.0

    @property
    def text(self) -> str:
        """The bytes decoded as UTF-8, with U+FFFD in place of incomplete code points."""
        return self.token.decode(errors="replace")


@dataclass(frozen=True, slots=True)
class TokenLogprob(Result):
    """The log probability of one generated token."""

    token_id: int = 0
    token: bytes = b""
    """The bytes of the token, which may be only a part of a code point."""
    logprob: float = 0.0
    top: tuple[TopLogprob, ...] = ()
    """The most probable tokens at this position, as many as were requested, the most probable one first."""

    @property
    def text(self) -> str:
        """The bytes decoded as UTF-8, with U+FFFD in place of incomplete code points."""
        return self.token.decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Speculation(Result):
    """What speculative decoding contributed to an answer."""

    steps: int = 0
    draft_tokens: int = 0
    accepted_tokens: int = 0
