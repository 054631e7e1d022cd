"""The key that says who calls."""

import os
from collections.abc import Sequence

from doherty._core._addresses import is_loopback


def key_metadata(
    api_key: str | None, targets: Sequence[str], *, encrypted: bool, insecure: bool
) -> tuple[tuple[str, str], ...]:
    """The metadata that carries the key that was given, else that of the environment; none without a key.

    Raises:
        TypeError: The key is no text.
        ValueError: It cannot stand in a header, or would cross a network that anybody on the way can read.
    """
    key = os.environ.get("DOHERTY_API_KEY") if api_key is None else api_key
    if not key:
        return ()
    if not isinstance(key, str):
        raise TypeError(f"api_key= is a str, not {type(key).__name__}.")
    if not (key.isascii() and key.isprintable() and " " not in key):
        # The key itself stays out of the message, which may be logged.
        raise ValueError("The API key has characters that no key has, such as a line break at its end.")
    exposed = [target for target in targets if not is_loopback(target)]
    if exposed and not encrypted and not insecure:
        raise ValueError(
            f"The API key would go to {', '.join(exposed)} unencrypted. Use tls=True or TLSConfig(...); where the "
            "whole network in between is trusted, insecure=True."
        )
    return (("authorization", f"Bearer {key}"),)
