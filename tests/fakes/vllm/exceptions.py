"""The errors of a request, and whether the caller caused them."""

from typing import Any

from ._version import IS_NEWEST


class VLLMError(Exception):
    """The base class of all errors, from 0.27.1 on."""


class _ClientError(VLLMError):
    """An error that the request caused."""


_Base: type[Exception] = ValueError
if IS_NEWEST:
    VLLMClientError = _ClientError
    _Base = _ClientError


class VLLMValidationError(_Base):  # type: ignore[misc,valid-type]  # as it is in this version
    """A request that does not pass vLLM's checks."""

    def __init__(self, message: str, *, parameter: str | None = None, value: Any = None) -> None:
        super().__init__(message)
        self.parameter = parameter
        self.value = value
