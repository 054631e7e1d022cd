"""Inputs for the RPCs of a server."""

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from support.fuzz.messages import constrained, messages, raw, serialize
from support.fuzz.rpcs import Rpc


@dataclass(frozen=True)
class Input:
    """What is sent on one RPC."""

    rpc: Rpc
    requests: tuple[bytes, ...]
    """One, but where requests are streamed."""

    def __repr__(self) -> str:
        """Enough to send it again."""
        return f"{self.rpc.path} {self.requests!r}"


def inputs(rpcs: Sequence[Rpc]) -> st.SearchStrategy[Input]:
    """Inputs for all the RPCs; every second one is for those that generate."""
    generating = [rpc for rpc in rpcs if rpc.request.name == "GenerateRequest"]
    per_rpc = {rpc.path: _inputs_of(rpc) for rpc in rpcs}
    chosen = st.booleans().flatmap(lambda generates: st.sampled_from(generating if generates else list(rpcs)))
    return chosen.flatmap(lambda rpc: per_rpc[rpc.path])


def constrained_inputs(rpcs: Sequence[Rpc]) -> st.SearchStrategy[Input]:
    """Inputs for the RPCs that generate which are right in all but the form that they ask for."""
    generating = [rpc for rpc in rpcs if rpc.request.name == "GenerateRequest"]
    requests = constrained(generating[0].request).map(serialize)
    return st.builds(lambda rpc, data: Input(rpc, (data,)), st.sampled_from(generating), requests)


def _inputs_of(rpc: Rpc) -> st.SearchStrategy[Input]:
    whole = messages(rpc.request).map(serialize)
    nearly = raw(rpc.request)
    one = st.integers(0, 3).flatmap(lambda dice: whole if dice else nearly)
    several = st.lists(one, max_size=3) if rpc.streams_requests else one.map(lambda data: [data])
    return several.map(lambda requests: Input(rpc, tuple(requests)))
