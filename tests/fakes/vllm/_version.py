"""The version of vLLM that this fake replaces."""

import os

OLDEST, NEWEST = "0.26.0", "0.33.0"
VERSION = os.environ.get("FAKE_VLLM_VERSION", OLDEST)
IS_NEWEST = VERSION == NEWEST
