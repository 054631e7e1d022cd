"""The names of the services."""

from doherty.v1 import generation_service_pb2, latency_service_pb2

SERVICES = (
    generation_service_pb2.DESCRIPTOR.services_by_name["GenerationService"].full_name,
    latency_service_pb2.DESCRIPTOR.services_by_name["LatencyService"].full_name,
)
"""The services of the contract. They are healthy while the engine is."""
