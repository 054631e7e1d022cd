"""Reads the validity of certificates. The standard library can do that only for the peer of a connection."""

import re
import ssl
from datetime import UTC, datetime
from typing import NamedTuple

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_VERSION, _UTC_TIME = 0xA0, 0x17
_LONG = 0x80


class Validity(NamedTuple):
    """The validity period of a certificate, in seconds since 1970."""

    begins: float
    ends: float


def read_validity(chain: bytes) -> Validity:
    """Returns the period in which all certificates of a PEM file are valid.

    Raises:
        ValueError: The file contains no certificate, or one that does not follow RFC 5280.
    """
    periods = [_certificate_validity(ssl.PEM_cert_to_DER_cert(pem.decode("ascii"))) for pem in _PEM.findall(chain)]
    if not periods:
        raise ValueError("there is no certificate")
    return Validity(max(period.begins for period in periods), min(period.ends for period in periods))


def _certificate_validity(der: bytes) -> Validity:
    """Reads the validity, which follows the serial number, the algorithm and the issuer (RFC 5280, 4.1)."""
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
    """Returns the tag and the content of the first DER element, and the bytes after it."""
    if len(der) < 2:  # noqa: PLR2004 - a tag and a length
        raise ValueError("the certificate is truncated")
    size, start = der[1], 2
    if size & _LONG:
        start += size & ~_LONG
        size = int.from_bytes(der[2:start])
    if len(der) < start + size:
        raise ValueError("the certificate is truncated")
    return der[0], der[start : start + size], der[start + size :]


def _time(tag: int, text: bytes) -> float:
    """Parses UTCTime or GeneralizedTime, both in UTC. UTCTime has two digits for the years 1950 to 2049."""
    digits = text.decode("ascii").removesuffix("Z")
    if tag == _UTC_TIME:
        digits = ("19" if digits >= "50" else "20") + digits
    return datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp()
