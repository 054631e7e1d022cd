"""Markers for tests."""

import pytest

from support.conformance import Case
from support.transports import TRANSPORT

only_grpcio = pytest.mark.skipif(TRANSPORT != "grpcio", reason="this tests gRPC's core")


def parametrize(*cases: Case) -> pytest.MarkDecorator:
    """Returns a marker that runs a test once for each case."""
    return pytest.mark.parametrize("case", cases, ids=[case.rule for case in cases])
