"""MultiplexGenerate: many requests on one RPC, each as if it were a call of its own."""

from doherty_service.multiplex._multiplex import Multiplex

__all__ = ["Multiplex"]
