"""What came of one of many requests."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

from doherty._core._errors import DohertyError
from doherty._core._results import Generation, ParsedT_co

if TYPE_CHECKING:
    from doherty._core._prompt import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class MapResult(Generic[ParsedT_co]):
    """The answer to one of the prompts of `AsyncClient.map`, or the error in its place."""

    index: int = 0
    """The place of the prompt, from 0."""
    prompt: "Prompt" = ""
    generation: Generation[ParsedT_co] | None = None
    """The answer; None if there is an error."""
    error: DohertyError | None = None

    def result(self) -> Generation[ParsedT_co]:
        """The answer.

        Raises:
            DohertyError: There is an error in its place.
        """
        if self.generation is None:
            raise self.error or DohertyError("There is neither an answer nor an error.")
        return self.generation
