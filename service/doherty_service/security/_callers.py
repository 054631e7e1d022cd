"""Authenticates callers by their API keys, and counts what each key uses."""

import asyncio
import logging
import time
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
_CHECK_SECONDS = 0.001
"""Calls that arrive within this time share a check whether the file has changed."""
_MAX_ACCEPTED = 1_000
"""Maximum number of remembered headers. A key has one per spelling of the scheme ("Bearer", "bearer") that is used."""


class Caller:
    """A caller of a server without keys: it may do everything, without limits."""

    name = ""
    """The name of the caller's key; empty if the server has no keys."""

    @property
    def weight(self) -> float:
        """The caller's share of the engine's time, relative to the other callers that wait.

        Raises:
            UnauthenticatedError: The key was revoked.
        """
        return 1.0

    @property
    def highest_priority(self) -> str:
        """The highest priority that the caller's requests can have: "interactive" or "batch".

        Raises:
            UnauthenticatedError: The key was revoked.
        """
        return "interactive"

    async def refresh(self) -> None:
        """Reloads the keys if their file has changed."""

    def check_adapter(self, adapter: str) -> None:
        """Checks that the caller may use an adapter. The empty name means the model without an adapter.

        Raises:
            PermissionDeniedError: The caller may not use it.
            UnauthenticatedError: The key was revoked.
        """

    def may_see(self, key: str) -> bool:  # noqa: ARG002 - without keys there is nothing to hide
        """Whether the caller may see statistics of the key with this name.

        Raises:
            UnauthenticatedError: The caller's own key was revoked.
        """
        return True

    def take(self) -> float:
        """Counts one request against the caller's limits. Pass the returned value to `give_back` at its end.

        Raises:
            OverloadedError: The request would exceed a limit.
            UnauthenticatedError: The key was revoked.
        """
        return 0.0

    def give_back(self, taken: float) -> None:
        """Records the end of a request. `taken` is what `take` returned."""

    def charge(self, tokens: int) -> None:
        """Counts tokens of a prompt or of an answer against the caller's limit."""


ANYBODY = Caller()
"""The caller of every request to a server without keys."""


class _KeyHolder(Caller):
    """The holder of a key. It looks the key up each time, because the key may change during a long call."""

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

    async def refresh(self) -> None:
        await self._keyring.refresh()

    def check_adapter(self, adapter: str) -> None:
        allowed = self._keyring.key(self._id).adapters
        if adapter and allowed is not None and adapter not in allowed:
            names = ", ".join(allowed) or "none"
            raise PermissionDeniedError(
                "ADAPTER_NOT_ALLOWED",
                f"the key {self.name!r} may not use the adapter {adapter[:100]!r}; allowed adapters: {names}",
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
    """The valid keys. It reloads its file when the file changes, and keeps the previous keys if that fails."""

    def __init__(self, path: Path, refusals: Counter[str], defaults: Limits = NO_LIMITS) -> None:
        """Reads the file.

        Args:
            path: The file of keys.
            refusals: Counts requests that exceed a limit of their key, by error reason.
            defaults: The limits of keys that do not have their own.

        Raises:
            KeysFileError: The file cannot be used.
        """
        self._path = path
        self._refusals = refusals
        self._defaults = defaults
        self._watch = FileWatch([path])
        self._checked = 0.0
        """When the file was last checked (`time.monotonic()`)."""
        self._problem = ""
        self._reading: asyncio.Future[None] | None = None
        self._keys = {key.id: key for key in read_keys(path)}
        self._limits = self._read_limits()
        self._accepted: dict[bytes, Caller] = {}
        """Authenticated callers by the SHA-256 of their `authorization` header. Cleared when the file changes."""
        self._usage: dict[str, Usage] = {}

    def authenticate(self, metadata: Sequence[tuple[str, str | bytes]]) -> Caller:
        """Returns the caller that the metadata identifies, according to the keys that were read last.

        Raises:
            UnauthenticatedError: The metadata contains no key, or no valid one.
        """
        sent = [str(value) for name, value in metadata if name == _HEADER]
        digest = sha256(sent[0].encode()).digest() if len(sent) == 1 else b""
        caller = self._accepted.get(digest)
        if caller is None:
            caller = self._check(sent)
            if len(self._accepted) >= _MAX_ACCEPTED:
                self._accepted.clear()
            self._accepted[digest] = caller
        return caller

    def _check(self, sent: Sequence[str]) -> Caller:
        """Looks up the caller's key. The time it takes does not depend on where the secrets differ."""
        scheme, _, token = sent[0].partition(" ") if sent else ("", "", "")
        if scheme.lower() != _SCHEME:
            raise UnauthenticatedError("MISSING_KEY", "an API key is required, as 'authorization: Bearer dh_...'")
        parts = split_token(token.strip())
        key = self._keys.get(parts[0]) if parts else None
        if parts is None or key is None or len(sent) > 1:
            is_secret_of(None, token)  # takes as long as the comparison with a known key
            raise _invalid_key()
        if not is_secret_of(key, parts[1]):
            raise _invalid_key()
        return _KeyHolder(self, key)

    def key(self, identifier: str) -> ApiKey:
        """Returns the key with this id, as it was last read from the file.

        Raises:
            UnauthenticatedError: The key was revoked.
        """
        key = self._keys.get(identifier)
        if key is None:
            raise _invalid_key()
        return key

    def take(self, key: ApiKey) -> float:
        """Counts a request against the limits of the key. Pass the returned value to `give_back` at its end.

        Raises:
            OverloadedError: The request would exceed a limit of the key.
        """
        usage = self._usage.get(key.id)
        if usage is None:
            usage = self._usage[key.id] = Usage(key.name)
        try:
            return usage.take(self._limits[key.id])
        except OverloadedError as error:
            self._refusals[error.reason] += 1
            raise

    def give_back(self, identifier: str, taken: float) -> None:
        """Records the end of a request of the key with this id. The key may have been revoked in the meantime."""
        if (usage := self._usage.get(identifier)) is not None:
            usage.release(taken)

    def charge(self, identifier: str, tokens: int) -> None:
        """Counts tokens against the limit of the key with this id. The key may have been revoked in the meantime."""
        usage, key = self._usage.get(identifier), self._keys.get(identifier)
        if usage is not None and key is not None:
            usage.charge(tokens, self._limits[identifier])

    @property
    def names(self) -> list[str]:
        """The names of all keys. Thread-safe."""
        return [key.name for key in self._keys.values()]

    def use(self) -> Iterator[tuple[str, str, float]]:
        """Yields the name of a key, the name of a limit, and the used share of that limit (1 is all). Thread-safe."""
        usage_by_id = dict(self._usage)
        for key in self._keys.values():
            usage = usage_by_id.get(key.id) or Usage(key.name)
            for limit, share in usage.shares(key.limits(self._defaults)):
                yield key.name, limit, share

    async def refresh(self) -> None:
        """Reloads the file in a thread if it has changed, and returns when that is done."""
        if self._reading is not None:
            await asyncio.shield(self._reading)  # it may have begun before the last change of the file
        now = time.monotonic()
        if self._reading is None and now - self._checked > _CHECK_SECONDS:
            self._checked = now
            if self._watch.changed():
                self._reading = asyncio.ensure_future(self._read())
        if self._reading is not None:
            await asyncio.shield(
                self._reading
            )  # other callers wait for it, too, so cancelling this one must not end it

    def _read_limits(self) -> dict[str, Limits]:
        """Returns the limits of each key, which are needed several times for every request."""
        return {key.id: key.limits(self._defaults) for key in self._keys.values()}

    async def _read(self) -> None:
        try:
            keys = await asyncio.to_thread(read_keys, self._path)
        except (KeysFileError, MemoryError, RuntimeError) as error:  # RuntimeError: no thread could be started
            if not isinstance(error, KeysFileError) or isinstance(error.__cause__, OSError):
                # A later attempt may succeed although the file is unchanged, for example after a shortage of file
                # descriptors.
                self._watch.mark_changed()
                if str(error) == self._problem:
                    return
            self._problem = str(error)
            _log.error("keys_not_read", extra={"fields": {"error": self._problem}})
            return
        finally:
            self._reading = None
        self._problem = ""
        self._keys = {key.id: key for key in keys}
        self._limits = self._read_limits()
        self._accepted.clear()
        self._usage = {identifier: usage for identifier, usage in self._usage.items() if identifier in self._keys}
        _log.info("keys_read", extra={"fields": {"keys": len(keys)}})


def _invalid_key() -> UnauthenticatedError:
    return UnauthenticatedError(
        "INVALID_KEY", "the key is not valid: it is mistyped, was revoked, or belongs to another server"
    )
