"""The client for asyncio: the half of the package that does I/O on an event loop."""
