"""Load reports for load balancers, in ORCA's format."""

from doherty_service.load._meter import LoadMeter
from doherty_service.load._service import LOAD_SERVICE, LoadServicer, add_load_service

__all__ = ["LOAD_SERVICE", "LoadMeter", "LoadServicer", "add_load_service"]
