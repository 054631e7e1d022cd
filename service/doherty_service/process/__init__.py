"""Utilities for the server's process: standard streams, files, sockets and memory."""

from doherty_service.process._files import UnfitFileError, read_file
from doherty_service.process._memory import give_memory_back, limit_free_memory
from doherty_service.process._process import describe, prepare_process
from doherty_service.process._sockets import Resolved, bind_all, bind_socket, resolve

__all__ = [
    "Resolved",
    "UnfitFileError",
    "bind_all",
    "bind_socket",
    "describe",
    "give_memory_back",
    "limit_free_memory",
    "prepare_process",
    "read_file",
    "resolve",
]
