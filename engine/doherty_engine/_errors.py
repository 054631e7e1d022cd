"""The errors of engines.

    EngineError
    ├── InvalidInputError     the request is invalid; names the field
    ├── UnsupportedError      this engine does not support the request; names the field
    ├── EngineFailedError     the engine died, or produced an invalid answer
    ├── OutOfResourcesError   memory or file descriptors ran out for this request; the engine still works
    └── EngineSetupError      the engine cannot start; the message says what to do

The messages of the first two are sent to the caller; those of the others never leave the server.
"""

import errno

_MAX_LINE = 300
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class EngineError(Exception):
    """The base class of all errors that an engine raises or puts into a StepOutput."""


class _FieldError(EngineError):
    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        """The path of the invalid field of GenerateRequest, for example "constraint.json_schema"."""


class InvalidInputError(_FieldError):
    """The request is invalid in a way that only the model's tokenizer, context or grammar can detect."""


class UnsupportedError(_FieldError):
    """The request has a combination of fields that this engine does not support."""


class EngineFailedError(EngineError):
    """The engine died, or produced an invalid answer."""


class OutOfResourcesError(EngineError):
    """Memory or file descriptors ran out for this request. The engine still works."""


class EngineSetupError(EngineError):
    """The engine cannot start. The message is one sentence that says what is missing and what to do."""


def first_line(error: BaseException, lines: int = 1) -> str:
    """The first lines of an error's message, joined to one line of at most 300 characters without a full stop.

    If the message is empty, it is the name of the class. Errors of pydantic need three lines, because the first one
    contains only the number of errors.
    """
    texts = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(texts[:lines])[:_MAX_LINE].rstrip(".") or type(error).__name__


def is_shortage(error: BaseException) -> bool:
    """Whether an error means that the process has no memory or no file descriptors left."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _SHORTAGES)
