"""The command `doherty engine`: shows an engine's profiles, prepares a model for it, and verifies it on this machine.

It starts real servers as a user does, so nothing in `doherty_service` knows an engine by name.
"""

from doherty_engine_cli._command import engine

__all__ = ["engine"]
