"""The messages of ORCA, as bytes.

The one package with their generated code (xds-protos) also has `google/__init__.py`, which hides the other packages
under `google`. What is needed of the messages is small enough to be written here.
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
    """Requests that run or wait, divided by the engine's slots; above 1 where some wait."""
    answers_per_second: float
    """Answers that were completed."""
    failures_per_second: float
    """Requests that got no whole answer although their callers made no mistake and stayed; refused ones among them."""
    in_flight: int
    """Requests that run or wait at this moment."""

    def encode(self) -> bytes:
        """An xds.data.orca.v3.OrcaLoadReport."""
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
    """The seconds between two reports that an xds.service.orca.v3.OrcaLoadReportRequest asks for; 0 if it does not.

    Raises:
        google.protobuf.message.DecodeError: these bytes are no message.
    """
    # Its first field is a Duration, as that of RetryInfo is; the second one names costs, which we do not report.
    interval = RetryInfo.FromString(request).retry_delay
    return float(interval.seconds + interval.nanos / 1e9)


def _double(field: int, value: float) -> bytes:
    return _DOUBLE.pack(field << 3 | _FIXED64, value)


def _bytes(field: int, value: bytes) -> bytes:
    return bytes((field << 3 | _BYTES, len(value))) + value
