"""What can go wrong."""


class BenchmarkError(Exception):
    """It cannot go on; the message is one sentence that says what to do, or what was not as it should be."""
