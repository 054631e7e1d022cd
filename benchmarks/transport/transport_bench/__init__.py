"""Compares servers of token streams with each other, on one machine, in one run."""
