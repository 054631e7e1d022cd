"""The error of this benchmark."""


class BenchmarkError(Exception):
    """The benchmark cannot continue. The message is one sentence that describes the problem or what to do."""
