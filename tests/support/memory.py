"""What a process holds, as Linux counts it."""

from pathlib import Path

from support.server import ServerProcess


def peak_bytes(server: ServerProcess) -> int:
    """The most that was resident so far, however short it was."""
    return _read(server, "VmHWM")


def resident_bytes(server: ServerProcess) -> int:
    """What is resident now."""
    return _read(server, "VmRSS")


def _read(server: ServerProcess, name: str) -> int:
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
