"""Utilities for the server's process: standard streams, files and memory."""

from doherty_service.process._files import UnfitFileError, read_file
from doherty_service.process._memory import give_memory_back, limit_free_memory
from doherty_service.process._process import describe, prepare_process

__all__ = ["UnfitFileError", "describe", "give_memory_back", "limit_free_memory", "prepare_process", "read_file"]
