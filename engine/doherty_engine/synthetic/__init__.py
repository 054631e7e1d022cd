"""An engine without a model: deterministic answers on a clock, for load tests and for tests of the server.

The token at a position is a function of the prompt, the adapter, the penalties and, above temperature 0, the other
sampling settings including the seed. It does not depend on other requests or on a prefix, so a resumed answer continues
exactly like the original one.
"""

from doherty_engine.synthetic._engine import SyntheticEngine
from doherty_engine.synthetic._options import Options

__all__ = ["Options", "SyntheticEngine", "create"]


def create(options: Options) -> SyntheticEngine:
    """Makes an engine that is not yet started."""
    return SyntheticEngine(options)
