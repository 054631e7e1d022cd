"""Reads what a GGUF file says of its model, without its weights."""

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from doherty_engine._errors import EngineSetupError

_SCALARS = {0: "B", 1: "b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING = 8
_ARRAY = 9
_OLDEST_VERSION = 2
"""Version 1 has other lengths."""
_WANTED_ARRAYS = frozenset({"tokenizer.ggml.tokens", "tokenizer.ggml.token_type"})


@dataclass(frozen=True, slots=True)
class Gguf:
    """The metadata of a GGUF file."""

    values: dict[str, object]
    """The single values."""
    tokens: tuple[str, ...]
    """The vocabulary as the file spells it, by id."""
    token_types: tuple[int, ...]

    @property
    def context_tokens(self) -> int | None:
        """The context that the model was trained for."""
        return self.integer(f"{self.values.get('general.architecture')}.context_length")

    @property
    def has_chat_template(self) -> bool:
        """Whether the file has a chat template."""
        template = self.values.get("tokenizer.chat_template")
        return isinstance(template, str) and bool(template.strip())

    def integer(self, key: str) -> int | None:
        """A whole number, or None where the file does not say."""
        value = self.values.get(key)
        return value if isinstance(value, int) else None

    def number(self, key: str) -> float | None:
        """A number, or None where the file does not say."""
        value = self.values.get(key)
        return float(value) if isinstance(value, int | float) else None


def read_gguf(path: Path) -> Gguf:
    """Reads the metadata.

    Raises:
        EngineSetupError: the file cannot be read or is not a GGUF file.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse(data)
    except (OSError, ValueError, struct.error, UnicodeDecodeError) as error:
        raise EngineSetupError(f"{path} is not a GGUF file that can be read ({error}); name another model.") from error


def _parse(data: mmap.mmap) -> Gguf:
    if data[:4] != b"GGUF":
        raise ValueError("it does not begin with the letters GGUF")
    version, _tensors, count = struct.unpack_from("<IQQ", data, 4)
    if version < _OLDEST_VERSION:
        raise ValueError(f"its version {version} is too old")
    cursor = _Cursor(data, 24)
    values: dict[str, object] = {}
    arrays: dict[str, list[object]] = {}
    for _ in range(count):
        key = cursor.string()
        kind = cursor.scalar("<I")
        if kind == _ARRAY:
            elements = cursor.array(keep=key in _WANTED_ARRAYS)
            if elements:
                arrays[key] = elements
        else:
            values[key] = cursor.value(kind)
    return Gguf(
        values=values,
        tokens=tuple(token for token in arrays.get("tokenizer.ggml.tokens", []) if isinstance(token, str)),
        token_types=tuple(kind for kind in arrays.get("tokenizer.ggml.token_type", []) if isinstance(kind, int)),
    )


class _Cursor:
    def __init__(self, data: mmap.mmap, position: int) -> None:
        self._data = data
        self._position = position

    def scalar(self, layout: str) -> int:
        (value,) = struct.unpack_from(layout, self._data, self._position)
        self._position += struct.calcsize(layout)
        number: int = value
        return number

    def string(self) -> str:
        return self._bytes().decode()

    def value(self, kind: int) -> object:
        return self._reader(kind)()

    def array(self, *, keep: bool) -> list[object]:
        kind, length = self.scalar("<I"), self.scalar("<Q")
        if not keep and kind in _SCALARS:
            self._position += length * struct.calcsize(_SCALARS[kind])
            return []
        read = self._bytes if kind == _STRING and not keep else self._reader(kind)
        elements = [read() for _ in range(length)]
        return elements if keep else []

    def _reader(self, kind: int) -> Callable[[], object]:
        if kind == _STRING:
            return self.string
        if kind == _ARRAY:
            return lambda: self.array(keep=False)
        if kind not in _SCALARS:
            raise ValueError(f"it holds a value of the unknown type {kind}")
        layout = _SCALARS[kind]
        return lambda: self.scalar(layout)

    def _bytes(self) -> bytes:
        length = self.scalar("<Q")
        start, self._position = self._position, self._position + length
        if self._position > len(self._data):
            raise ValueError("it is cut off")
        return self._data[start : self._position]
