"""The services of the contract."""

from doherty_service.servicers._generation import GenerationServicer
from doherty_service.servicers._latency import LatencyServicer

__all__ = ["GenerationServicer", "LatencyServicer"]
