"""Random and malformed inputs for every RPC that a server offers, and checks of the answers."""
