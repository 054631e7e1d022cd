"""The servicers of the contract's two services."""

from doherty_service.servicers._generation import Bounds, GenerationServicer
from doherty_service.servicers._latency import LatencyServicer

__all__ = ["Bounds", "GenerationServicer", "LatencyServicer"]
