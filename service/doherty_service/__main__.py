"""Runs the server without the SDK's command: `python -m doherty_service`."""

from doherty_service.command import serve

if __name__ == "__main__":  # an engine's own processes import this module, too
    serve(prog_name="doherty serve")
