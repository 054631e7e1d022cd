"""The same package as in vLLM."""
