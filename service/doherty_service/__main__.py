"""Runs the server without the SDK's command: `python -m doherty_service`."""

from doherty_service.command import serve

serve(prog_name="doherty serve")
