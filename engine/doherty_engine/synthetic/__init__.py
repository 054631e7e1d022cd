"""The engine that computes nothing: deterministic answers by a clock, for load tests and for tests of a server.

The token at a place of an answer is a function of the prompt, the adapter, the penalties and, above temperature 0, the
other sampling settings with the seed: never of what else runs, and not of where the answer was begun, so that a resumed
one goes on exactly as the undisturbed one would have.
"""

from doherty_engine.synthetic._engine import SyntheticEngine
from doherty_engine.synthetic._options import Options

__all__ = ["Options", "SyntheticEngine", "create"]


def create(options: Options) -> SyntheticEngine:
    """Makes the engine, not yet started."""
    return SyntheticEngine(options)
