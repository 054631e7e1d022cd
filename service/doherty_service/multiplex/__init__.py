"""MultiplexGenerate: many requests on one RPC, each treated like a separate call."""

from doherty_service.multiplex._multiplex import Multiplex

__all__ = ["Multiplex"]
