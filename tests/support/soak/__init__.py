"""Simulates callers of every kind, and measures the resources that a server holds."""
