"""The servers that are measured, each a program: `python -m transport_bench.servers.NAME`."""
