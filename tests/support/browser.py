"""Finds a headless Chromium: the one of this machine, or of the Debian that `make .cache/chromium/.made` creates."""

import shutil

import pytest

from support.pages import ROOT

_MACHINE = ROOT / ".cache" / "chromium"
_CHROMIUM = (
    "chromium",
    "--headless",
    "--no-sandbox",  # root has no sandbox
    "--disable-gpu",
    "--disable-dev-shm-usage",
)


def browser(profile: str) -> tuple[str, ...]:
    """Returns the first words of a command that runs the browser; skips the test if there is none.

    Args:
        profile: The name of a profile, for browsers that run at the same time.
    """
    command = (*_CHROMIUM, f"--user-data-dir=/tmp/doherty-{profile}")
    if shutil.which("chromium") is not None:
        return command
    if not (_MACHINE / ".made").exists():
        pytest.fail("get it with `make .cache/chromium/.made`")
    if (_MACHINE / "absent").exists():
        pytest.skip((_MACHINE / "absent").read_text())
    return ("bash", str(ROOT / "tests" / "support" / "inside.sh"), str(_MACHINE / "root"), *command)
