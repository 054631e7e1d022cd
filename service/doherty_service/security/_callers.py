"""Who calls: the holder of a key, or anybody where keys are not asked for."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from doherty_service._errors import OverloadedError, PermissionDeniedError, UnauthenticatedError
from doherty_service.security._key import ApiKey, is_secret_of, split_token
from doherty_service.security._keys_file import KeysFileError, read_keys
from doherty_service.security._limits import NO_LIMITS, Limits
from doherty_service.security._usage import Usage
from doherty_service.security._watch import FileWatch

_log = logging.getLogger("doherty.security")
_HEADER = "authorization"
_SCHEME = "bearer"
_MOST_ACCEPTED = 1_000
"""Headers that are remembered: one per key, and as many spellings of the scheme as callers use."""


class Caller:
    """Anybody: may do everything, without limits."""

    name = ""
    """The name of the key; empty for anybody."""

    @property
    def weight(self) -> float:
        """The share of the engine's time while others wait, relative to theirs.

        Raises:
            UnauthenticatedError: the key was revoked.
        """
        return 1.0

    @property
    def highest_priority(self) -> str:
        """The highest priority that its requests have, "interactive" or "batch", whatever they claim.

        Raises:
            UnauthenticatedError: the key was revoked.
        """
        return "interactive"

    async def follow(self) -> None:
        """Takes in what has become of the caller's key since it was shown."""

    def check_adapter(self, adapter: str) -> None:
        """Makes sure that the caller may use an adapter; the empty name stands for the model without one.

        Raises:
            PermissionDeniedError: it may not.
            UnauthenticatedError: the key was revoked.
        """

    def may_see(self, key: str) -> bool:  # noqa: ARG002 - for anybody there are no others to be hidden
        """Whether the caller may be told of the requests of the key of this name.

        Raises:
            UnauthenticatedError: the caller's own key was revoked.
        """
        return True

    def take(self) -> float:
        """Counts one request against the caller's limits, until `give_back` gets what this returns.

        Raises:
            OverloadedError: one more would be beyond a limit.
            UnauthenticatedError: the key was revoked.
        """
        return 0.0

    def give_back(self, taken: float) -> None:
        """Notes that a request has ended."""

    def charge(self, tokens: int) -> None:
        """Counts tokens against the caller's limit: those of a prompt, or those of an answer."""


ANYBODY = Caller()
"""Every caller, where no keys are asked for."""


class _KeyHolder(Caller):
    """The holder of a key; what the keyring has of it is looked up each time, for one call can bring many requests."""

    def __init__(self, keyring: "Keyring", key: ApiKey) -> None:
        self._keyring = keyring
        self._id = key.id
        self.name = key.name

    @property
    def weight(self) -> float:
        return self._keyring.key(self._id).weight

    @property
    def highest_priority(self) -> str:
        return self._keyring.key(self._id).highest_priority

    async def follow(self) -> None:
        await self._keyring.follow()

    def check_adapter(self, adapter: str) -> None:
        allowed = self._keyring.key(self._id).adapters
        if adapter and allowed is not None and adapter not in allowed:
            names = ", ".join(allowed) or "none"
            raise PermissionDeniedError(
                "ADAPTER_NOT_ALLOWED", f"the key {self.name!r} may not use the adapter {adapter[:100]!r}, but: {names}"
            )

    def may_see(self, key: str) -> bool:
        return key == self.name or self._keyring.key(self._id).operator

    def take(self) -> float:
        return self._keyring.take(self._keyring.key(self._id))

    def give_back(self, taken: float) -> None:
        self._keyring.give_back(self._id, taken)

    def charge(self, tokens: int) -> None:
        self._keyring.charge(self._id, tokens)


class Keyring:
    """All keys that are valid now: follows its file, and keeps what it has while that is broken."""

    def __init__(self, path: Path, refusals: Counter[str], defaults: Limits = NO_LIMITS) -> None:
        """Reads the file; requests beyond a key's limit are counted in `refusals`.

        `defaults` hold for what a key itself says nothing of.

        Raises:
            KeysFileError: the file cannot be used.
        """
        self._path = path
        self._refusals = refusals
        self._defaults = defaults
        self._watch = FileWatch([path])
        self._problem = ""
        self._reading: asyncio.Future[None] | None = None
        self._keys = {key.id: key for key in read_keys(path)}
        self._accepted: dict[bytes, Caller] = {}
        """The holders of valid keys by the SHA-256 of the header that they sent, until the file changes."""
        self._usage: dict[str, Usage] = {}

    def authenticate(self, metadata: Sequence[tuple[str, str | bytes]]) -> Caller:
        """Finds out who sent the metadata, by the keys of the file when it was last read.

        Raises:
            UnauthenticatedError: there is no key in it, or none that is valid.
        """
        sent = [str(value) for name, value in metadata if name == _HEADER]
        digest = sha256(sent[0].encode()).digest() if len(sent) == 1 else b""
        caller = self._accepted.get(digest)
        if caller is None:
            caller = self._check(sent)
            if len(self._accepted) >= _MOST_ACCEPTED:
                self._accepted.clear()
            self._accepted[digest] = caller
        return caller

    def _check(self, sent: Sequence[str]) -> Caller:
        """Compares a key with those of the file, in a time that does not depend on where they differ."""
        scheme, _, token = sent[0].partition(" ") if sent else ("", "", "")
        if scheme.lower() != _SCHEME:
            raise UnauthenticatedError("MISSING_KEY", "a key is needed, as 'authorization: Bearer dh_...'")
        parts = split_token(token.strip())
        key = self._keys.get(parts[0]) if parts else None
        if parts is None or key is None or len(sent) > 1:
            is_secret_of(None, token)
            raise _invalid()
        if not is_secret_of(key, parts[1]):
            raise _invalid()
        return _KeyHolder(self, key)

    def key(self, identifier: str) -> ApiKey:
        """The key of an id as the file had it when it was last read.

        Raises:
            UnauthenticatedError: there is none any more.
        """
        key = self._keys.get(identifier)
        if key is None:
            raise _invalid()
        return key

    def take(self, key: ApiKey) -> float:
        """Counts a request of the key, until `give_back` gets what this returns.

        Raises:
            OverloadedError: one more would be beyond a limit of the key.
        """
        usage = self._usage.get(key.id)
        if usage is None:
            usage = self._usage[key.id] = Usage(key.name)
        try:
            return usage.take(key.limits(self._defaults))
        except OverloadedError as error:
            self._refusals[error.reason] += 1
            raise

    def give_back(self, identifier: str, taken: float) -> None:
        """Notes that a request of the key with this id has ended; the key may have been revoked since."""
        if (usage := self._usage.get(identifier)) is not None:
            usage.release(taken)

    def charge(self, identifier: str, tokens: int) -> None:
        """Counts tokens of the key with this id, which may have been revoked since."""
        usage, key = self._usage.get(identifier), self._keys.get(identifier)
        if usage is not None and key is not None:
            usage.charge(tokens, key.limits(self._defaults))

    @property
    def names(self) -> list[str]:
        """The names of all keys; any thread may ask."""
        return [key.name for key in self._keys.values()]

    def use(self) -> Iterator[tuple[str, str, float]]:
        """The names of keys and of their limits, and how much of each limit is in use; any thread may ask."""
        used = dict(self._usage)
        for key in self._keys.values():
            usage = used.get(key.id) or Usage(key.name)
            for limit, share in usage.shares(key.limits(self._defaults)):
                yield key.name, limit, share

    async def follow(self) -> None:
        """Reads the file again if it has changed, in a thread, and returns when that is done."""
        if self._reading is not None:
            await asyncio.shield(self._reading)  # it may have begun before the last change
        if self._reading is None and self._watch.changed():
            self._reading = asyncio.ensure_future(self._read())
        if self._reading is not None:
            await asyncio.shield(self._reading)  # a caller that leaves must not end it for the others

    async def _read(self) -> None:
        try:
            keys = await asyncio.to_thread(read_keys, self._path)
        except (KeysFileError, MemoryError, RuntimeError) as error:  # there may be no memory, or no thread to be had
            if not isinstance(error, KeysFileError) or isinstance(error.__cause__, OSError):
                # Of rights, of a lack of file descriptors, ...: it can be mended while the file stays as it is.
                self._watch.forget()
                if str(error) == self._problem:
                    return
            self._problem = str(error)
            _log.error("keys_not_read", extra={"fields": {"error": self._problem}})
            return
        finally:
            self._reading = None
        self._problem = ""
        self._keys = {key.id: key for key in keys}
        self._accepted.clear()
        self._usage = {identifier: used for identifier, used in self._usage.items() if identifier in self._keys}
        _log.info("keys_read", extra={"fields": {"keys": len(keys)}})


def _invalid() -> UnauthenticatedError:
    return UnauthenticatedError(
        "INVALID_KEY", "the key is not valid: it is mistyped, was revoked, or is another server's"
    )
