"""The transport of the servers that tests start: DOHERTY_TEST_TRANSPORT names it; grpcio is the default."""

import os

import pytest

# Removed from the environment, because a server refuses variables DOHERTY_* that are no settings.
TRANSPORT = os.environ.pop("DOHERTY_TEST_TRANSPORT", "") or "grpcio"
TRANSPORT_VARIABLE = {"DOHERTY_TRANSPORT": TRANSPORT}
"""The variable that makes a server use it."""

only_grpcio = pytest.mark.skipif(TRANSPORT != "grpcio", reason="this tests gRPC's core")
