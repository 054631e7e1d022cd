"""A second port for SMG, a gateway that translates OpenAI's HTTP API to `vllm.grpc.engine.VllmEngine`.

The settings call this port the door.
"""

from doherty_service.gateway._server import check_door, run_door

__all__ = ["check_door", "run_door"]
