"""The door for SMG, a gateway that speaks OpenAI's API to its callers and `vllm.grpc.engine.VllmEngine` to servers."""

from doherty_service.gateway._server import check_door, run_door

__all__ = ["check_door", "run_door"]
