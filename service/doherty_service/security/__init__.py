"""Who may come in: API keys and their limits, and TLS."""

from doherty_service.security._cache_salt import CacheSalts
from doherty_service.security._callers import ANYBODY, Caller, Keyring
from doherty_service.security._key import ApiKey, new_key
from doherty_service.security._keys_file import KeysFileError, changing_keys, read_keys
from doherty_service.security._tls import CertificateError, CertificateFiles, Certificates

__all__ = [
    "ANYBODY",
    "ApiKey",
    "CacheSalts",
    "Caller",
    "CertificateError",
    "CertificateFiles",
    "Certificates",
    "Keyring",
    "KeysFileError",
    "changing_keys",
    "new_key",
    "read_keys",
]
