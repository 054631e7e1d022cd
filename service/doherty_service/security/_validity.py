"""Until when certificates are valid: the standard library reads that only of a connection's other side."""

import re
import ssl
from datetime import UTC, datetime
from typing import NamedTuple

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_VERSION, _UTC_TIME = 0xA0, 0x17
_LONG = 0x80


class Validity(NamedTuple):
    """A span of time, in seconds since 1970."""

    begins: float
    ends: float


def read_validity(chain: bytes) -> Validity:
    """The span in which all certificates of a PEM file are valid.

    Raises:
        ValueError: there is none, or one is not as RFC 5280 has it.
    """
    spans = [_of_certificate(ssl.PEM_cert_to_DER_cert(one.decode("ascii"))) for one in _PEM.findall(chain)]
    if not spans:
        raise ValueError("there is no certificate")
    return Validity(max(one.begins for one in spans), min(one.ends for one in spans))


def _of_certificate(der: bytes) -> Validity:
    """RFC 5280, 4.1: the validity stands behind the serial number, the algorithm and the issuer."""
    _, certificate, _ = _take(der)
    _, body, _ = _take(certificate)
    tag, _, rest = _take(body)
    for _ in range(3 if tag == _VERSION else 2):
        _, _, rest = _take(rest)
    _, validity, _ = _take(rest)
    begin_tag, begin, rest = _take(validity)
    end_tag, end, _ = _take(rest)
    return Validity(_time(begin_tag, begin), _time(end_tag, end))


def _take(der: bytes) -> tuple[int, bytes, bytes]:
    """The tag and the content of the first element, and what is behind it."""
    if len(der) < 2:  # noqa: PLR2004 - a tag and a length
        raise ValueError("the certificate is cut off")
    size, at = der[1], 2
    if size & _LONG:
        at += size & ~_LONG
        size = int.from_bytes(der[2:at])
    if len(der) < at + size:
        raise ValueError("the certificate is cut off")
    return der[0], der[at : at + size], der[at + size :]


def _time(tag: int, text: bytes) -> float:
    """Both kinds of time are in UTC; the one with two digits for the year begins with 1950."""
    digits = text.decode("ascii").removesuffix("Z")
    if tag == _UTC_TIME:
        digits = ("19" if digits >= "50" else "20") + digits
    return datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp()
