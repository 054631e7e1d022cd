"""Reads llama.cpp's chunks, which have the JSON format of OpenAI's completions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from doherty_engine._errors import EngineError, EngineFailedError
from doherty_engine._outputs import TokenLogprob
from doherty_engine.llamacpp._vocabulary import Vocabulary
from doherty_engine.text import known_logprobs


@dataclass(frozen=True, slots=True)
class Chunk:
    """What llama.cpp passes to one callback: progress with the prompt, new text, or the end."""

    text: str
    generated_tokens: int
    """The total so far."""
    cached_tokens: int
    token: Mapping[str, Any] | None
    """The entry of the last token, or None if the chunk has no token."""
    finish_reason: str | None
    prompt_left: int | None
    """The tokens of the prompt that are not computed yet; None if the chunk does not report them."""
    prompt_seconds: float
    """How long the prompt has been computed; 0 if the chunk does not report it."""

    @property
    def token_id(self) -> int | None:
        """The id of the last token, or None if the chunk has no token."""
        return None if self.token is None else self.token["id"]


def read_chunk(data: Mapping[str, Any]) -> Chunk:
    """Reads one chunk.

    Raises:
        EngineError: The chunk is an error. This engine refuses everything that a caller can do wrong before it calls
            llama.cpp, so the caller is not at fault.
    """
    if "error" in data:
        # If llama.cpp refused the request, a retry elsewhere would not help: this engine should have refused it.
        is_refusal = data["error"].get("type") == "invalid_request_error"
        raise (EngineError if is_refusal else EngineFailedError)(f"llama.cpp answered: {data['error']}")
    choice, timings, progress = data["choices"][0], data["timings"], data.get("prompt_progress")
    content = (choice["logprobs"] or {}).get("content")
    return Chunk(
        text=choice["text"],
        generated_tokens=timings["predicted_n"],
        cached_tokens=timings["cache_n"],
        token=content[-1] if content else None,
        finish_reason=choice["finish_reason"],
        prompt_left=progress["total"] - progress["processed"] if progress else None,
        prompt_seconds=progress["time_ms"] / 1000 if progress else 0.0,
    )


def read_logprob(token: Mapping[str, Any], top_logprobs: int, vocabulary: Vocabulary) -> TokenLogprob | None:
    """The log probability of a chunk's only token and of the most probable alternatives; None if one is unknown."""
    top = token["top_logprobs"][:top_logprobs]
    known = known_logprobs({entry["id"]: entry["logprob"] for entry in (*top, token)})
    if known is None:
        return None
    pieces = vocabulary.pieces
    others = tuple(TokenLogprob(entry["id"], pieces[entry["id"]], known[entry["id"]]) for entry in top)
    return TokenLogprob(token["id"], pieces[token["id"]], known[token["id"]], others)
