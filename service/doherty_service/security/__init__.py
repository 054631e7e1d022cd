"""Who may come in: API keys and their limits, and TLS."""

from doherty_service.security._callers import Caller, Keyring, current_caller, set_current_caller
from doherty_service.security._key import ApiKey, new_key
from doherty_service.security._keys_file import KeysFileError, changing_keys, read_keys
from doherty_service.security._tls import CertificateError, CertificateFiles, tls_credentials

__all__ = [
    "ApiKey",
    "Caller",
    "CertificateError",
    "CertificateFiles",
    "Keyring",
    "KeysFileError",
    "changing_keys",
    "current_caller",
    "new_key",
    "read_keys",
    "set_current_caller",
    "tls_credentials",
]
