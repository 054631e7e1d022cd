"""Collects all problems of a request, so that the caller can fix them together."""

from doherty_service._errors import MAX_VIOLATIONS, InvalidRequestError, Violation


class Violations:
    """The problems of a request that were found so far."""

    def __init__(self) -> None:
        self._violations: list[Violation] = []

    def check(self, holds: bool, field: str, description: str) -> None:  # noqa: FBT001 - the condition comes first
        """Adds a violation unless the condition holds. A status has room for `MAX_VIOLATIONS`; the rest is dropped."""
        if not holds and len(self._violations) < MAX_VIOLATIONS:
            self._violations.append(Violation(field, description))

    def check_range(self, value: float, low: float, high: float, field: str, *, exclude_low: bool = False) -> None:
        """Adds a violation if a number is NaN or outside of its range."""
        holds = low < value <= high if exclude_low else low <= value <= high
        self.check(holds, field, f"must be {'above' if exclude_low else 'from'} {low:g} to {high:g}")

    def raise_if_any(self) -> None:
        """Raises the violations, if there are any.

        Raises:
            InvalidRequestError: There is at least one.
        """
        if self._violations:
            raise InvalidRequestError(self._violations)
