"""Has the facts of a text extracted into nested pydantic models: `python examples/structured_output.py`.

The server is the environment's DOHERTY_TARGET, else localhost:50051. It needs pydantic, which the SDK does not.
"""

from enum import StrEnum

from pydantic import BaseModel, Field

from doherty import Client, ParseError

REVIEW = "The soup was cold, but the fish was the best that I ever had, and Ana, our waitress, was a joy. I'll be back!"


class Mood(StrEnum):
    """How somebody speaks of something."""

    GOOD = "good"
    MIXED = "mixed"
    BAD = "bad"


class Dish(BaseModel):
    """A dish that a review mentions."""

    name: str = Field(max_length=20)
    mood: Mood


class Review(BaseModel):
    """What is to be found out about a review."""

    mood: Mood
    stars: int = Field(ge=1, le=5)
    dishes: list[Dish] = Field(max_length=3)
    waiter: str | None = Field(max_length=20)
    would_return: bool


def main() -> None:
    """Reads one review."""
    with Client() as client:
        try:
            review = client.generate(f"Read this review: {REVIEW}", schema=Review, max_output_tokens=400).parsed
        except ParseError as error:  # the answer was cut off, say
            print(f"no review ({error.generation.finish_reason}): {error.generation.text}")
            return
    print(f"{review.mood}, {review.stars} of 5, would return: {review.would_return}, waiter: {review.waiter!r}")
    for dish in review.dishes:
        print(f"- {dish.name!r}: {dish.mood}")


if __name__ == "__main__":
    main()
