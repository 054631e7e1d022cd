"""Measures servers of token streams against each other, on one machine, in one run."""
