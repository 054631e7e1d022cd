"""The measured servers. Each is a program: `python -m transport_bench.servers.NAME`."""
