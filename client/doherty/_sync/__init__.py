"""The client for ordinary code: the half of the package that does blocking I/O."""
