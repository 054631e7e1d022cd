"""The transport of the servers that tests start, from the variable DOHERTY_TEST_TRANSPORT; the default is grpcio."""

import os

# Removed from the environment, because a server refuses variables DOHERTY_* that are not settings.
TRANSPORT = os.environ.pop("DOHERTY_TEST_TRANSPORT", "") or "grpcio"
TRANSPORT_VARIABLE = {"DOHERTY_TRANSPORT": TRANSPORT}
"""The environment variable with which a server uses this transport."""
