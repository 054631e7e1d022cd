"""What a server tells of its latency."""

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
"""Of a server that has done nothing, as an older one tells it."""
