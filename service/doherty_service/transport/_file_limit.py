"""How many connections the limit of open files allows."""

import resource

from doherty_service.telemetry import log_warning

_OTHER_FILES = 512
"""Open files reserved for purposes other than connections."""

_LARGEST = 2**31 - 1


def room_for_connections(wanted: int) -> int:
    """Returns how many connections the process's limit of open files allows, at most `wanted`.

    Raises the soft limit if possible: on many systems it is 1024, and the engine needs files, too.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * wanted + _OTHER_FILES  # `connections_to_accept`
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    except (OSError, ValueError):  # macOS has a further limit, which it does not report
        limit = soft
    if _room(limit) >= wanted:
        return wanted
    log_warning("few_files", limit=limit, wanted=wanted + _OTHER_FILES, connections=_room(limit))
    return _room(limit)


def connections_to_accept(max_connections: int) -> int:
    """Returns how many connections gRPC may accept if at most `max_connections` are to stay.

    gRPC refuses new connections beyond its limit. With a higher limit, it accepts new ones until the guard has shut
    down the surplus.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(
        2 * max_connections, _LARGEST if soft == resource.RLIM_INFINITY else max(max_connections, _room(soft)), _LARGEST
    )


def _room(limit: int) -> int:
    """Returns how many connections are possible with `limit` open files."""
    return max(1, limit - min(_OTHER_FILES, limit // 2))
