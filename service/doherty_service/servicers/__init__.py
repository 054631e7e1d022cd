"""The services of the contract."""

from doherty_service.servicers._generation import Bounds, GenerationServicer
from doherty_service.servicers._latency import LatencyServicer

__all__ = ["Bounds", "GenerationServicer", "LatencyServicer"]
