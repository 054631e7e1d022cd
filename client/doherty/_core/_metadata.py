"""The metadata that a caller adds to calls."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

Metadata = Mapping[str, str | bytes] | Sequence[tuple[str, str | bytes]]
"""Names and values. If a name ends with "-bin", its value is bytes; all other values are printable ASCII."""

_NAME: Final = re.compile(r"[0-9a-z_.-]+")
_TEXT: Final = re.compile(r"[\x20-\x7e]*")

_OWN_PREFIXES: Final = ("grpc-", "doherty-")
_SET_BY_GRPC: Final = frozenset({"te", "content-type", "content-length", "user-agent", "host"})
"""gRPC drops these if a caller sets them."""
_OF_HTTP_1: Final = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"})
"""HTTP/2 forbids these headers, and proxies refuse them (RFC 9113, 8.2.2)."""


class Pairs(tuple[tuple[str, str | bytes], ...]):
    """Metadata in gRPC's format. The repr shows only the names, because a value may be a secret."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Pairs({', '.join(name for name, _ in self)})"


NO_PAIRS: Final = Pairs()


def check_metadata(metadata: Metadata | None) -> Pairs:
    """Checks metadata, and returns it in gRPC's format, with names in lower case.

    Raises:
        TypeError: The metadata has a wrong type.
        ValueError: A name or a value cannot be sent, or the name is reserved. The message contains no value.
    """
    if metadata is None:
        return NO_PAIRS
    items: Any = metadata.items() if isinstance(metadata, Mapping) else metadata
    if isinstance(items, str | bytes) or not hasattr(items, "__iter__"):
        raise TypeError(f"metadata= is a mapping or a sequence of pairs, not {type(metadata).__name__}.")
    return Pairs(map(_check_pair, items))


def merge(pairs: Pairs, other: Pairs) -> Pairs:
    """Returns both. Entries of `other` override those with the same name."""
    if not other or not pairs:
        return other or pairs
    names = {name for name, _ in other}
    return Pairs((*(pair for pair in pairs if pair[0] not in names), *other))


def _check_pair(pair: Any) -> tuple[str, str | bytes]:
    if isinstance(pair, str | bytes) or not isinstance(pair, Sequence) or len(pair) != 2:  # noqa: PLR2004 - a pair
        raise TypeError("metadata= has an item that is no pair of a name and a value.")
    name, value = pair
    if not isinstance(name, str):
        raise TypeError(f"metadata= has a name that is no str but {type(name).__name__}.")
    name = name.lower()
    if not _NAME.fullmatch(name):
        raise ValueError(f"metadata= has the name {name!r}: names consist of ASCII letters, digits, '-', '_' and '.'.")
    if name == "authorization":
        raise ValueError("metadata= cannot have authorization: api_key= sets it.")
    if name in _SET_BY_GRPC | _OF_HTTP_1 or name.startswith(_OWN_PREFIXES):
        raise ValueError(f"metadata= cannot have {name}: the transport or the SDK sets it.")
    kind: type[str | bytes] = bytes if name.endswith("-bin") else str
    if not isinstance(value, kind):
        raise TypeError(f"metadata= has a {type(value).__name__} for {name}, and needs {kind.__name__} there.")
    if isinstance(value, str) and not _TEXT.fullmatch(value):
        raise ValueError(f"metadata= has a value for {name} that is not printable ASCII; a name in -bin takes bytes.")
    return name, value
