"""MultiplexGenerate: many requests on one RPC, each as if it were a call of its own."""

from doherty_service.multiplex._lane import Lane
from doherty_service.multiplex._multiplex import Multiplex, Serve

__all__ = ["Lane", "Multiplex", "Serve"]
