"""API keys and their limits, and TLS."""

from doherty_service.security._cache_salt import CacheSalts
from doherty_service.security._callers import ANYBODY, Caller, Keyring
from doherty_service.security._key import UNLIMITED, ApiKey, changed_key, new_key
from doherty_service.security._keys_file import KeysFileError, changing_keys, read_keys
from doherty_service.security._limits import LIMITS, Limits
from doherty_service.security._tls import CertificateError, CertificateFiles, Certificates

__all__ = [
    "ANYBODY",
    "LIMITS",
    "UNLIMITED",
    "ApiKey",
    "CacheSalts",
    "Caller",
    "CertificateError",
    "CertificateFiles",
    "Certificates",
    "Keyring",
    "KeysFileError",
    "Limits",
    "changed_key",
    "changing_keys",
    "new_key",
    "read_keys",
]
