"""A headless Chromium: the machine's, or the one on a Debian that `make .cache/chromium/.made` makes."""

import shutil

import pytest

from support.pages import ROOT

_MACHINE = ROOT / ".cache" / "chromium"
_CHROMIUM = (
    "chromium",
    "--headless",
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-dev-shm-usage",
)


def browser(profile: str) -> tuple[str, ...]:
    """The beginning of a command that runs it; skips the test where there is none.

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
