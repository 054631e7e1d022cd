"""Inputs that nobody would send, for every RPC that a server offers, and the judgement of its answers."""
