"""The parameters of a generation by name, for the type checker alone: the overloads share them."""

from collections.abc import Sequence
from typing import TypedDict

from doherty._core._options import GenerateOptions
from doherty._core._timeout import Timeout


class Parameters(TypedDict, total=False):
    """All parameters of `generate` but the prompt and the schema."""

    system: str | None
    temperature: float | None
    top_p: float | None
    max_output_tokens: int | None
    stop: str | Sequence[str] | None
    seed: int | None
    adapter: str | None
    time_limit: float | None
    timeout: Timeout
    first_token_timeout: float | None
    idle_timeout: float | None
    request_id: str | None
    options: GenerateOptions | None
