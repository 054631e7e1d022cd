"""What can go wrong in an engine.

    EngineError
    ├── InvalidInputError     the request cannot be served by anybody; names the field
    ├── UnsupportedError      this engine cannot do it; names the field
    ├── EngineFailedError     the engine died, or gave an answer that makes no sense
    ├── OutOfResourcesError   there was no memory or file descriptor left for it; the engine is well
    └── EngineSetupError      it cannot start; one sentence says what to do

The messages of the first two are written for the caller; those of the others never leave the server.
"""

import errno

_LONGEST_LINE = 300
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class EngineError(Exception):
    """The base of all errors that an engine raises or puts into a StepOutput."""


class _FieldError(EngineError):
    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        """The path of the field of GenerateRequest at fault, as "constraint.json_schema"."""


class InvalidInputError(_FieldError):
    """The request is wrong in a way that only the model's tokenizer, context or grammar could tell."""


class UnsupportedError(_FieldError):
    """The request asks for a combination that this engine cannot honour."""


class EngineFailedError(EngineError):
    """The engine died, or gave an answer that makes no sense."""


class OutOfResourcesError(EngineError):
    """There was no memory or file descriptor left for the request. The engine works, and may take the next one."""


class EngineSetupError(EngineError):
    """The engine cannot start; the message is one sentence that says what is missing and what to do."""


def first_line(error: BaseException, lines: int = 1) -> str:
    """What an error says in its first lines, as one line without a full stop, of at most 300 characters.

    Where it says nothing it is the name of its class. Errors of pydantic need three lines: the first one only counts
    what is wrong.
    """
    texts = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(texts[:lines])[:_LONGEST_LINE].rstrip(".") or type(error).__name__


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that the process has no memory or no file descriptor left."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _SHORTAGES)
