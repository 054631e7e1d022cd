"""Reads the metadata of a GGUF file, and checks that its weights are complete."""

import math
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
"""Version 1 stores lengths in 32 bits, later versions in 64."""
_ALIGNMENT = 32
"""The default alignment of the weights, in bytes."""
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74),
    18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2),
    26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip
"""Numbers per block and bytes per block for each ggml tensor type (`ggml_blck_size` and `ggml_type_size`)."""
_WANTED_ARRAYS = frozenset({"tokenizer.ggml.tokens", "tokenizer.ggml.token_type"})


@dataclass(frozen=True, slots=True)
class Gguf:
    """The metadata of a GGUF file."""

    values: dict[str, object]
    """All values that are not arrays, by key."""
    tokens: tuple[str, ...]
    """The vocabulary by token id, in the tokenizer's spelling."""
    token_types: tuple[int, ...]

    @property
    def architecture(self) -> str:
        """The model architecture as llama.cpp names it, for example "llama"; empty if the file does not say."""
        name = self.values.get("general.architecture")
        return name if isinstance(name, str) else ""

    @property
    def context_tokens(self) -> int | None:
        """The context length that the model was trained with; None if the file does not say."""
        return self.integer(f"{self.architecture}.context_length")

    @property
    def has_chat_template(self) -> bool:
        """Whether the file has a chat template that is not blank."""
        template = self.values.get("tokenizer.chat_template")
        return isinstance(template, str) and bool(template.strip())

    def integer(self, key: str) -> int | None:
        """The integer stored under `key`, or None."""
        value = self.values.get(key)
        return value if isinstance(value, int) else None

    def number(self, key: str) -> float | None:
        """The number stored under `key`, or None."""
        value = self.values.get(key)
        return float(value) if isinstance(value, int | float) else None


def read_gguf(path: Path) -> Gguf:
    """Reads the metadata, and checks that the file contains all weights.

    Raises:
        EngineSetupError: The file cannot be read, is not a GGUF file, or is incomplete.
    """
    try:
        with path.open("rb") as file:
            if not path.stat().st_size:
                raise EngineSetupError(f"The model file {path} is empty; download it again.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _parse(data)
    except OSError as error:
        raise EngineSetupError(f"The model file {path} cannot be read ({error}); check its permissions.") from error
    except _CutOffError as error:
        raise EngineSetupError(f"The model file {path} is incomplete: {error}; download it again.") from error
    except ValueError as error:
        raise EngineSetupError(f"{path} is not a readable GGUF file ({error}); choose another model.") from error


class _CutOffError(Exception):
    """The file is shorter than its header says."""


def _parse(data: mmap.mmap) -> Gguf:
    _check_kind(data)
    cursor = _Cursor(data, 8)
    tensors, count = cursor.scalar("<Q"), cursor.scalar("<Q")
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
    alignment = values.get("general.alignment")
    _check_weights(cursor, tensors, alignment if isinstance(alignment, int) and alignment > 0 else _ALIGNMENT)
    return Gguf(
        values=values,
        tokens=tuple(token for token in arrays.get("tokenizer.ggml.tokens", []) if isinstance(token, str)),
        token_types=tuple(kind for kind in arrays.get("tokenizer.ggml.token_type", []) if isinstance(kind, int)),
    )


def _check_kind(data: mmap.mmap) -> None:
    if data[:12] == b"version http":
        raise ValueError("it is a Git LFS pointer instead of the model")
    if data[:4] != b"GGUF":
        raise ValueError("it does not start with GGUF")
    version = _Cursor(data, 4).scalar("<I")
    if version and not version & 0xFFFF:
        raise ValueError("it is for big-endian processors")
    if version < _OLDEST_VERSION:
        raise ValueError(f"its version {version} is too old")


def _check_weights(cursor: "_Cursor", tensors: int, alignment: int) -> None:
    """Reads the tensor table, and checks that the file is long enough to contain all tensors."""
    end = 0
    for _ in range(tensors):
        cursor.string()
        size = math.prod(cursor.scalar("<Q") for _ in range(cursor.scalar("<I")))
        block_size, block_bytes = _BLOCKS.get(cursor.scalar("<I"), (1, 0))  # unknown types are not checked
        end = max(end, cursor.scalar("<Q") + size // block_size * block_bytes)
    begin = -(-cursor.position // alignment) * alignment
    if tensors and cursor.size < begin + end:
        raise _CutOffError(f"it has {cursor.size} of {begin + end} bytes")


class _Cursor:
    def __init__(self, data: mmap.mmap, position: int) -> None:
        self._data = data
        self._position = position

    @property
    def position(self) -> int:
        return self._position

    @property
    def size(self) -> int:
        return len(self._data)

    def scalar(self, layout: str) -> int:
        try:
            (value,) = struct.unpack_from(layout, self._data, self._position)
        except struct.error:
            raise _CutOffError("it ends inside its metadata") from None
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
            raise ValueError(f"it has a value of the unknown type {kind}")
        layout = _SCALARS[kind]
        return lambda: self.scalar(layout)

    def _bytes(self) -> bytes:
        length = self.scalar("<Q")
        start, self._position = self._position, self._position + length
        if self._position > len(self._data):
            raise _CutOffError("it ends inside its metadata")
        return self._data[start : self._position]
