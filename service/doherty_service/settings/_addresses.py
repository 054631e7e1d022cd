"""Reads the addresses in settings."""

from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network


def read_networks(text: str) -> list[IPv4Network | IPv6Network]:
    """Parses networks or single addresses that are separated by commas.

    Raises:
        ValueError: One of them is not a network, or has host bits set.
    """
    return [ip_network(part.strip()) for part in text.split(",") if part.strip()]


def is_loopback(listen: str) -> bool:
    """Whether the address HOST:PORT can be reached from this machine only."""
    host = listen.rpartition(":")[0].strip("[]")
    # RFC 6761: names under localhost mean this machine; case and a trailing dot do not matter.
    name = host.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False  # any other name may resolve to any address
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback
