"""Runs the command `modal` with an account in the simulated cloud."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from support.modal_cloud import Cloud

ROOT: Final = Path(__file__).parents[2]
APP: Final = ROOT / "deploy" / "modal_app.py"


def account(cloud: Cloud) -> dict[str, str]:
    """Returns the environment variables that `modal` reads."""
    return {
        "MODAL_SERVER_URL": cloud.url,
        "MODAL_TOKEN_ID": "ak-1",
        "MODAL_TOKEN_SECRET": "as-1",
        "MODAL_CONFIG_PATH": "/dev/null",
    }


def modal(cloud: Cloud, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs `modal` in the checkout; `variables` are added to its environment."""
    command = (sys.executable, "-m", "modal", *arguments)
    environment = {**os.environ, **account(cloud), **variables}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL
    )


def deploy(cloud: Cloud, **variables: str) -> None:
    """Deploys the app."""
    done = modal(cloud, "deploy", str(APP), **variables)
    assert done.returncode == 0, done.stdout + done.stderr
