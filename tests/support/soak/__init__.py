"""Callers of every kind, and what a server holds because of them."""
