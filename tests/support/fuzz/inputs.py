"""Inputs for the RPCs of a server."""

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from support.fuzz.messages import constrained, messages, raw, serialize
from support.fuzz.rpcs import Rpc


@dataclass(frozen=True)
class Input:
    """The requests that are sent on one RPC."""

    rpc: Rpc
    requests: tuple[bytes, ...]
    """A single request, unless the RPC streams requests."""

    def __repr__(self) -> str:
        """Contains everything that is needed to send the input again."""
        return f"{self.rpc.path} {self.requests!r}"


def inputs(rpcs: Sequence[Rpc]) -> st.SearchStrategy[Input]:
    """Generates inputs for all RPCs; half of them are for the RPCs that generate."""
    generating = [rpc for rpc in rpcs if rpc.request.name == "GenerateRequest"]
    per_rpc = {rpc.path: _inputs_of(rpc) for rpc in rpcs}
    chosen = st.booleans().flatmap(lambda generates: st.sampled_from(generating if generates else list(rpcs)))
    return chosen.flatmap(lambda rpc: per_rpc[rpc.path])


def constrained_inputs(rpcs: Sequence[Rpc]) -> st.SearchStrategy[Input]:
    """Generates inputs for the RPCs that generate. Only their constraints may be invalid."""
    generating = [rpc for rpc in rpcs if rpc.request.name == "GenerateRequest"]
    requests = constrained(generating[0].request).map(serialize)
    return st.builds(lambda rpc, data: Input(rpc, (data,)), st.sampled_from(generating), requests)


def _inputs_of(rpc: Rpc) -> st.SearchStrategy[Input]:
    whole = messages(rpc.request).map(serialize)
    nearly = raw(rpc.request)
    strategy = st.integers(0, 3).flatmap(lambda dice: whole if dice else nearly)
    several = st.lists(strategy, max_size=3) if rpc.streams_requests else strategy.map(lambda data: [data])
    return several.map(lambda requests: Input(rpc, tuple(requests)))
