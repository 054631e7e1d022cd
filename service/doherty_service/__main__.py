"""Runs the server without the command `doherty`: `python -m doherty_service`."""

from doherty_service.command import serve

if __name__ == "__main__":  # engines' child processes import this module, too
    serve(prog_name="doherty serve")
