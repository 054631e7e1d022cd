"""Start, drain and end of the server, and restarts of the engine."""

from doherty_service.lifecycle._lifecycle import run
from doherty_service.lifecycle._supervisor import EngineLostError, SupervisionSettings, Supervisor

__all__ = ["EngineLostError", "SupervisionSettings", "Supervisor", "run"]
