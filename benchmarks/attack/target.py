"""What is attacked."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A server, and what its attacker has."""

    address: str
    key: str
    """An API key that may have four requests at a time."""
    metrics: str
    """Where Prometheus reads, as HOST:PORT."""
    held: ExitStack
    """What stays open until the memory after the attack has been measured."""


Attack = Callable[[Target], None]
