"""Fixtures of the server's tests."""

from types import SimpleNamespace

import pytest

from support.admission import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ("_admission", "_pace"):
        monkeypatch.setattr(f"doherty_service.admission.{module}.time", SimpleNamespace(monotonic=clock))
    return clock
