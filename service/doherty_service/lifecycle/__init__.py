"""The server from its start to its end, and the engine's restarts between them."""

from doherty_service.lifecycle._lifecycle import run
from doherty_service.lifecycle._supervisor import EngineLostError, Patience, Supervisor

__all__ = ["EngineLostError", "Patience", "Supervisor", "run"]
