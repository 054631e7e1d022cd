# ruff: noqa: D101 - the classes are data
"""How structured output ends on the embedded model: 20 small types, each with 5 prompts.

`PYTHONPATH=tests python benchmarks/structured.py [--plain] [--bounded] [--frequency-penalty NUMBER] [--server PYTHON]`.
Sampling is the deployment's default, with seeds 0 to 4. `--plain` sends pydantic's own JSON Schema, which leaves
objects open, instead of the type. `--bounded` gives the list and the dict that have no maximum one of 5, as docs/sdk.md
recommends. `--server` is the interpreter of another checkout, whose server answers instead. It needs no quiet machine,
because it counts tokens and measures no time.

It prints, for each type, how the five answers ended and their output tokens, and the sums. Target: every answer that
ended by STOP parses, and at least 95 of 100 end within 512 tokens.
"""

import argparse
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, time
from enum import Enum
from statistics import median
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

from pydantic import BaseModel, Field, TypeAdapter
from typing_extensions import TypedDict

from doherty import Client, FinishReason, GenerateOptions, Generation, ParseError
from support.server import start_server

LIMIT = 512
TEXTS = (
    "The soup at Luigi's was cold, but the waiter made up for it. We paid 42 euros for two.",
    "Anna Berg, 34, from Oslo, joined Northwind as an engineer on 3 March 2021. She speaks Norwegian and English.",
    "Please send 3 red mugs and 12 blue plates to 5 Mill Lane, York, before Friday. The order number is 7781.",
    "Boil 200 g of pasta for 9 minutes, fry garlic in olive oil, mix both and add parmesan. It serves two.",
    "The meeting moves from Monday 10:00 to Wednesday 14:30 in room B2. Bring the budget. Omar cannot come.",
)


class Mood(Enum):
    GOOD = "good"
    MIXED = "mixed"
    BAD = "bad"


class Review(BaseModel):
    mood: Mood
    stars: int = Field(ge=1, le=5)
    would_return: bool


class Person(BaseModel):
    name: str
    age: int | None = None


class Address(BaseModel):
    street: str
    city: str


class Customer(BaseModel):
    person: Person
    address: Address


class Company(BaseModel):
    name: str
    staff: list[Person] = Field(max_length=3)


class Event(BaseModel):
    title: str
    day: date
    start: time


class Stamp(BaseModel):
    at: datetime
    level: Literal["info", "warning", "error"]


class Order(BaseModel):
    number: int
    items: list["OrderLine"] = Field(min_length=1, max_length=4)


class OrderLine(BaseModel):
    product: str
    count: int = Field(ge=1, le=100)
    color: Literal["red", "blue", "other"] = "other"


class Empty(BaseModel):
    pass


class Circle(BaseModel):
    kind: Literal["circle"]
    radius: float = Field(ge=0, le=100)


class Square(BaseModel):
    kind: Literal["square"]
    side: float = Field(ge=0, le=100)


class Drawing(BaseModel):
    shape: Annotated[Circle | Square, Field(discriminator="kind")]
    label: str = Field(max_length=20)


class Settings(BaseModel):
    dark: bool = False
    language: str = Field(default="en", pattern="^[a-z]{2}$")
    volume: int = Field(default=5, ge=0, le=10)


@dataclass
class Point:
    x: int
    y: int


@dataclass
class Recipe:
    title: str
    minutes: int
    vegetarian: bool


class Ticket(TypedDict):
    subject: str
    priority: Literal["low", "normal", "high"]


class Pair(NamedTuple):
    name: str
    amount: int


TYPES: dict[str, Any] = {
    "Review": Review,
    "Person": Person,
    "Customer": Customer,
    "Company": Company,
    "Event": Event,
    "Stamp": Stamp,
    "Order": Order,
    "Empty": Empty,
    "Drawing": Drawing,
    "Settings": Settings,
    "Point": Point,
    "Recipe": Recipe,
    "Ticket": Ticket,
    "Pair": Pair,
    "list[Person]": list[Person],
    "list[Literal]": list[Literal["food", "work", "travel", "home"]],
    "dict[str, bool]": dict[str, bool],
    "Literal": Literal["complaint", "order", "note", "other"],
    "int": Annotated[int, Field(ge=0, le=10_000)],
    "date | UUID": date | UUID,
}


BOUNDED: dict[str, Any] = {
    name: Annotated[TYPES[name], Field(max_length=5)] for name in ("list[Person]", "dict[str, bool]")
}


class Outcome(NamedTuple):
    """The result of one request."""

    generation: Generation
    parsed: bool

    @property
    def stopped(self) -> bool:
        """Whether the answer is complete."""
        return self.generation.finish_reason is FinishReason.STOP


@dataclass(frozen=True)
class Question:
    """How an object of a type is requested."""

    name: str
    kind: Any
    plain: bool
    frequency_penalty: float


def ask(client: Client, question: Question, seed: int) -> Outcome:
    """Requests one object from one text."""
    prompt = f"Give the {question.name} in this text as JSON: {TEXTS[seed]}"
    schema: Any = TypeAdapter(question.kind).json_schema() if question.plain else question.kind
    options = GenerateOptions(frequency_penalty=question.frequency_penalty)
    try:
        generation = client.generate(
            prompt, schema=schema, seed=seed, max_output_tokens=LIMIT, timeout=None, options=options
        )
    except ParseError as error:
        return Outcome(error.generation, parsed=False)
    return Outcome(generation, parsed=True)


def show(name: str, outcomes: list[Outcome]) -> list[Outcome]:
    """Prints the line of one type."""
    endings = Counter(str(outcome.generation.finish_reason) for outcome in outcomes)
    tokens = [outcome.generation.usage.output_tokens for outcome in outcomes]
    parsed = sum(outcome.parsed for outcome in outcomes)
    print(f"{name:14} {dict(endings)}, parsed {parsed}, tokens {tokens}", flush=True)
    return outcomes


def main() -> None:
    """Makes all requests, four at a time, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--bounded", action="store_true")
    parser.add_argument("--frequency-penalty", type=float, default=0.0)
    parser.add_argument("--server", default=sys.executable, metavar="PYTHON")
    arguments = parser.parse_args()
    how = arguments.plain, arguments.frequency_penalty
    kinds = TYPES | (BOUNDED if arguments.bounded else {})
    with (
        start_server(python=arguments.server) as server,
        Client(server.target) as client,
        ThreadPoolExecutor(4) as threads,
    ):
        waiting = {
            name: [threads.submit(ask, client, Question(name, kind, *how), seed) for seed in range(len(TEXTS))]
            for name, kind in kinds.items()
        }
        every = [outcome for name, futures in waiting.items() for outcome in show(name, [f.result() for f in futures])]
    tokens = [outcome.generation.usage.output_tokens for outcome in every]
    stopped = sum(outcome.stopped for outcome in every)
    unparsed = sum(outcome.stopped and not outcome.parsed for outcome in every)
    print(f"{stopped} of {len(every)} ended by STOP, {unparsed} of them did not parse")
    print(f"output tokens: {sum(tokens)} in all, median {median(tokens):g}, most {max(tokens)}")


if __name__ == "__main__":
    main()
