"""Freed memory that glibc keeps."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, os, tempfile, threading
from doherty_service.process import limit_free_memory

limit_free_memory()
barrier = threading.Barrier(9)

def hold_memory():
    block = bytearray(100_000)
    barrier.wait()

threads = [threading.Thread(target=hold_memory) for _ in range(8)]
for thread in threads:
    thread.start()
barrier.wait()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
with tempfile.NamedTemporaryFile("r") as report:
    file = ctypes.c_void_p(libc.fopen(report.name.encode(), b"w"))
    libc.malloc_info(0, file)
    libc.fclose(file)
    print(report.read().count("<heap "))
"""
"""Prints how many arenas eight threads have."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no arenas")
@pytest.mark.parametrize(("variables", "arenas"), [({}, 2), ({"MALLOC_ARENA_MAX": "5"}, 5)], ids=["ours", "set"])
def test_threads_share_arenas_unless_the_operator_has_set_limits(variables: dict[str, str], arenas: int) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=kept | variables, capture_output=True, text=True, check=True
    )
    assert int(run.stdout) == arenas
