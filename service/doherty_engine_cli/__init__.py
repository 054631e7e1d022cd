"""The command `doherty engine`: shows an engine's profiles, prepares a model for it, and verifies it on this machine.

It starts servers with `doherty serve`. It is a separate package, so that `doherty_service` knows no engine by name.
"""

from doherty_engine_cli._command import engine

__all__ = ["engine"]
