"""Separates the cached prefixes of different callers.

Callers that share a prefix cache can guess each other's prompts token by token: a prompt with the same beginning has
cached tokens, and its first token arrives sooner.
"""

import secrets
from hashlib import blake2b

from doherty_service.security._callers import Caller

_SECRET_BYTES = 32
_SALT_BYTES = 16


class CacheSalts:
    """Derives the cache salt of each caller. Callers share cached prefixes only if they have the same salt.

    With `shared`, all callers have the same salt.
    """

    def __init__(self, *, shared: bool) -> None:
        self._shared = shared
        self._secret = secrets.token_bytes(_SECRET_BYTES)
        self._salts: dict[str, str] = {}
        """By the name of the key."""

    def of(self, caller: Caller) -> str:
        """Returns the salt of a caller, which depends on the name of its key. All callers without a key share one."""
        if self._shared:
            return ""
        name = caller.name
        if name not in self._salts:
            self._salts[name] = blake2b(name.encode(), key=self._secret, digest_size=_SALT_BYTES).hexdigest()
        return self._salts[name]
