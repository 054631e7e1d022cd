"""Empties the code for other GPUs in shared libraries of CUDA, so that they compress well."""

import mmap
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

_MAGIC = 0xBA55ED50
_PTX, _ALIGNMENT = 1, 8
_ARCHITECTURE_AT = 28
"""Bytes from the start of an entry's header to the number of its architecture, such as 90 for Hopper."""


def empty_other_architectures(library: Path, architecture: int) -> None:
    """Writes zeros over code for other architectures than `architecture`, in place.

    PTX for older architectures stays, because the driver compiles it for newer ones. The headers stay, so the driver
    still finds what is left. Their layout was read from libraries of CUDA 13; NVIDIA does not document it.
    """
    with library.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        for offset, size in _sections(library):
            for header, start, length in _entries(data, offset, offset + size):
                kind = int.from_bytes(data[header : header + 2], "little")
                (built_for,) = struct.unpack_from("<I", data, header + _ARCHITECTURE_AT)
                if built_for != architecture and not (kind == _PTX and built_for < architecture):
                    data[start : start + length] = bytes(length)


def _sections(library: Path) -> Iterator[tuple[int, int]]:
    """Yields offset and size of the sections that hold code for GPUs."""
    listing = subprocess.run(["readelf", "-SW", library], capture_output=True, text=True, check=True).stdout
    for line in listing.splitlines():
        match line.replace("[ ", "[").split():
            case [_, ".nv_fatbin" | "__nv_relfatbin", _, _, offset, size, *_]:
                yield int(offset, 16), int(size, 16)


def _entries(data: mmap.mmap, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yields where the header of each piece of code begins, where its code begins, and how long the code is."""
    while position + 16 <= end:
        magic, _, header_size, size = struct.unpack_from("<IHHQ", data, position)
        if magic != _MAGIC:
            position += _ALIGNMENT
            continue
        entry = position + header_size
        position = entry + size
        while entry < position:
            _, _, entry_header_size, length = struct.unpack_from("<HHIQ", data, entry)
            yield entry, entry + entry_header_size, length
            entry += entry_header_size + length
        position = (position + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT
