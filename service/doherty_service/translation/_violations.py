"""Collects all that is wrong with a request, so that its caller can mend it in one go."""

from doherty_service._errors import MAX_VIOLATIONS, InvalidRequestError, Violation


class Violations:
    """What is wrong with a request so far."""

    def __init__(self) -> None:
        """Nothing is."""
        self._found: list[Violation] = []

    def check(self, holds: bool, field: str, description: str) -> None:  # noqa: FBT001 - the condition comes first
        """Takes note of `description` unless the condition holds, as long as there is room for it in a status."""
        if not holds and len(self._found) < MAX_VIOLATIONS:
            self._found.append(Violation(field, description))

    def within(self, value: float, low: float, high: float, field: str, *, above_low: bool = False) -> None:
        """Takes note of a number outside of its range, or that is none."""
        holds = low < value <= high if above_low else low <= value <= high
        self.check(holds, field, f"must be {'above' if above_low else 'from'} {low:g} to {high:g}")

    def raise_if_any(self) -> None:
        """Raises what was found.

        Raises:
            InvalidRequestError: something is wrong.
        """
        if self._found:
            raise InvalidRequestError(self._found)
