"""Keeps the cached prefixes of callers apart.

Who shares a prefix cache can find out what others have asked, token by token: a prompt that begins like theirs has
cached tokens, and its first token comes sooner.
"""

import secrets
from hashlib import blake2b

from doherty_service.security._callers import Caller

_SECRET_BYTES = 32
_SALT_BYTES = 16


class CacheSalts:
    """What each caller's cached prefixes are marked with."""

    def __init__(self, *, shared: bool) -> None:
        """With `shared`, all callers have the same one."""
        self._shared = shared
        self._secret = secrets.token_bytes(_SECRET_BYTES)

    def of(self, caller: Caller) -> str:
        """The salt of a caller, by the name of its key; all callers without a key count as one."""
        if self._shared:
            return ""
        return blake2b(caller.name.encode(), key=self._secret, digest_size=_SALT_BYTES).hexdigest()
