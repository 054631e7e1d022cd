"""The target of an attack."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A server, and what an attacker knows and keeps."""

    address: str
    key: str
    """An API key that is limited to four requests at a time."""
    metrics: str
    """The address of the metrics, as HOST:PORT."""
    held: ExitStack
    """Connections that stay open until the memory after the attack was measured."""


Attack = Callable[[Target], None]
