"""The result of one of many requests."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

from doherty._core._errors import DohertyError
from doherty._core._results import Generation, ParsedT_co

if TYPE_CHECKING:
    from doherty._core._prompt import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class MapResult(Generic[ParsedT_co]):
    """The answer to one of the prompts of `AsyncClient.map`, or the error of its request."""

    index: int = 0
    """The position of the prompt, starting at 0."""
    prompt: "Prompt" = ""
    generation: Generation[ParsedT_co] | None = None
    """The answer; None if there is an error."""
    error: DohertyError | None = None

    def result(self) -> Generation[ParsedT_co]:
        """Returns the answer.

        Raises:
            DohertyError: The request failed.
        """
        if self.generation is None:
            raise self.error or DohertyError("There is neither an answer nor an error.")
        return self.generation
