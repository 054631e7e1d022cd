"""Has an answer given as an object of a pydantic model: `python examples/structured_output.py`.

The server is the environment's DOHERTY_TARGET, else localhost:50051. It needs pydantic, which the SDK does not.
"""

from enum import StrEnum

from pydantic import BaseModel, Field

from doherty import Client, ParseError


class Mood(StrEnum):
    """How a review sounds."""

    GOOD = "good"
    MIXED = "mixed"
    BAD = "bad"


class Review(BaseModel):
    """What is to be found out about a review."""

    mood: Mood
    stars: int = Field(ge=1, le=5)
    would_return: bool


def main() -> None:
    """Reads one review."""
    with Client() as client:
        prompt = "Rate this review: 'The soup was cold, but the waiter made up for it.'"
        try:
            review = client.generate(prompt, schema=Review, max_output_tokens=200).parsed
        except ParseError as error:  # the answer was cut off, say
            print(f"no review ({error.generation.finish_reason}): {error.generation.text}")
        else:
            print(f"{review.mood}, {review.stars} of 5, would return: {review.would_return}")


if __name__ == "__main__":
    main()
