"""Encodes and decodes ORCA's messages.

The only package with generated code for them (xds-protos) contains `google/__init__.py`, which hides the other packages
under `google`. The messages are small enough to be encoded by hand.
https://github.com/cncf/xds/blob/main/xds/data/orca/v3/orca_load_report.proto
"""

import struct
from dataclasses import dataclass

from google.rpc.error_details_pb2 import RetryInfo

_DOUBLE = struct.Struct("<Bd")
_RPS_FRACTIONAL, _EPS, _NAMED_METRICS, _APPLICATION_UTILIZATION = 6, 7, 8, 9
_FIXED64, _BYTES = 1, 2
_IN_FLIGHT = b"requests_in_flight"


@dataclass(frozen=True, slots=True)
class LoadReport:
    """How busy a server is."""

    utilization: float
    """Running and waiting requests, divided by the engine's slots; above 1 if some wait."""
    answers_per_second: float
    """Completed answers."""
    failures_per_second: float
    """Valid requests whose callers stayed but got no complete answer, including refused ones."""
    in_flight: int
    """The current number of running and waiting requests."""

    def encode(self) -> bytes:
        """Encodes an xds.data.orca.v3.OrcaLoadReport."""
        entry = b"".join((_bytes(1, _IN_FLIGHT), _double(2, self.in_flight)))
        return b"".join(
            (
                _double(_RPS_FRACTIONAL, self.answers_per_second),
                _double(_EPS, self.failures_per_second),
                _bytes(_NAMED_METRICS, entry),
                _double(_APPLICATION_UTILIZATION, self.utilization),
            )
        )


def decode_interval(request: bytes) -> float:
    """Returns the report interval in seconds from an xds.service.orca.v3.OrcaLoadReportRequest; 0 if it is not set.

    Raises:
        google.protobuf.message.DecodeError: The bytes cannot be parsed.
    """
    # Field 1 is a Duration, as in RetryInfo. Field 2 selects costs, which we do not report.
    interval = RetryInfo.FromString(request).retry_delay
    return float(interval.seconds + interval.nanos / 1e9)


def _double(field: int, value: float) -> bytes:
    return _DOUBLE.pack(field << 3 | _FIXED64, value)


def _bytes(field: int, value: bytes) -> bytes:
    return bytes((field << 3 | _BYTES, len(value))) + value
