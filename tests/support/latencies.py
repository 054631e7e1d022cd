"""Latency figures as a server returns them."""

from doherty import Latency, Quantiles

UNKNOWN = Quantiles(None, None, None)
FRESH = Latency(
    window=300.0,
    answers=0,
    queue=UNKNOWN,
    time_to_first_token=UNKNOWN,
    time_to_last_token=UNKNOWN,
    time_per_output_token=UNKNOWN,
    threshold=0.4,
    first_token_share=None,
    last_token_share=None,
    running=0,
    queued=0,
    slots=1,
    kv_cache_use=None,
    refusals=0,
    aborts={},
    engine_restarts=0,
    uptime=10.0,
)
"""The reply of an older server that has not answered any request."""
