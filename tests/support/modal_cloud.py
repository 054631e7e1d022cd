"""The parts of Modal's cloud that the app and the command need: its API on a real socket, for the real package `modal`.

It is strict: a call that is not implemented is refused and recorded. Containers are real processes of Modal's runtime.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from queue import Empty, Queue
from typing import Any, Final

import grpc
from modal_proto import api_pb2

from support.modal_api import Api, NotFoundError

_SUCCESS: Final = api_pb2.GenericResult.GENERIC_STATUS_SUCCESS
_POLL_SECONDS: Final = 0.5


@dataclass
class Call:
    """A call of a function: its input and its result."""

    function_id: str
    item: api_pb2.FunctionGetInputsItem
    outputs: "Queue[api_pb2.FunctionGetOutputsItem]" = field(default_factory=Queue)


class Cloud(Api):
    """The deployed functions, their calls, and the stored data."""

    def __init__(self) -> None:
        """Starts empty."""
        super().__init__()
        self.url = ""
        self.functions: dict[str, api_pb2.Function] = {}
        """The deployed functions by name."""
        self.ids: dict[str, str] = {}
        """The ids of functions and classes by name."""
        self.bound: dict[str, bytes] = {}
        """The parameters of functions with bound parameters, by id."""
        self.images: dict[str, api_pb2.Image] = {}
        self.secrets: dict[str, api_pb2.SecretGetOrCreateRequest] = {}
        """The names of other objects, by id."""
        self.volumes: dict[str, str] = {}
        self.committed: list[str] = []
        self.reloaded: Queue[str] = Queue()
        """The names of volumes whose changes a container has fetched."""
        self.files: set[str] = set()
        """Uploaded files, by their path in the container."""
        self.entries: dict[bytes, bytes] = {}
        """The contents of the Dict."""
        self.tunnels: list[api_pb2.TunnelStartRequest] = []
        self.tunnel: tuple[str, int] = ("", 0)
        """The address of the next tunnel."""
        self.failures: list[str] = []
        """The reports of containers about their end."""
        self.ready = threading.Event()
        """Set when a server has reported that it is ready."""
        self.called: Queue[str] = Queue()
        """The ids of functions that were called."""
        self.disconnected = threading.Event()
        """Set when `modal run` has ended."""
        self._waiting: Queue[Call] = Queue()
        self._calls: dict[str, Call] = {}
        self._numbers = count(1)

    def handle(self, name: str) -> api_pb2.FunctionHandleMetadata:
        """Returns what Modal tells callers and containers about a function."""
        function = self.functions[name]
        methods = {
            key: api_pb2.FunctionHandleMetadata(
                function_name=method.function_name,
                function_type=method.function_type,
                is_method=True,
                use_method_name=key,
                function_schema=method.function_schema,
                supported_input_formats=method.supported_input_formats,
                supported_output_formats=method.supported_output_formats,
            )
            for key, method in function.method_definitions.items()
        }
        return api_pb2.FunctionHandleMetadata(
            function_name=name,
            function_type=function.function_type,
            class_parameter_info=function.class_parameter_info,
            method_handle_metadata=methods,
            function_schema=function.function_schema,
            supported_input_formats=function.supported_input_formats,
            supported_output_formats=function.supported_output_formats,
        )

    def variables(self, name: str) -> dict[str, str]:
        """Returns the environment variables that the secrets of a function set in its container."""
        names = [self.secrets[secret] for secret in self.functions[name].secret_ids]
        return {variable: value for secret in names for variable, value in secret.env_dict.items()}

    def stop_container(self) -> None:
        """Tells the container that accepts calls that there are no more."""
        self._waiting.put(Call("", api_pb2.FunctionGetInputsItem(kill_switch=True)))

    # Calls that build and deploy.

    def on_client_hello(self, _: Any) -> dict[str, Any]:
        return {}

    def on_app_get_by_deployment_name(self, _: Any) -> dict[str, Any]:
        return {}

    def on_app_create(self, _: Any) -> dict[str, Any]:
        return {"app_id": "ap-1", "app_page_url": "https://modal.example/ap-1"}

    def on_app_heartbeat(self, _: Any) -> dict[str, Any]:
        return {}

    def on_app_client_disconnect(self, _: Any) -> dict[str, Any]:
        self.disconnected.set()
        return {}

    def on_app_get_logs(self, _: Any) -> dict[str, Any]:
        self.disconnected.wait()
        return {"app_done": True}

    def on_app_publish(self, _: Any) -> dict[str, Any]:
        return {"url": "https://modal.example/ap-1"}

    def on_environment_get_or_create(self, _: Any) -> dict[str, Any]:
        settings = api_pb2.EnvironmentSettings(image_builder_version="2025.06")
        return {"environment_id": "en-1", "metadata": {"name": "main", "settings": settings}}

    def on_secret_get_or_create(self, request: Any) -> dict[str, Any]:
        secret_id = self._id("st")
        self.secrets[secret_id] = request
        return {"secret_id": secret_id}

    def on_volume_get_or_create(self, request: Any) -> dict[str, Any]:
        name = request.deployment_name
        volume_id = next((known_id for known_id, known in self.volumes.items() if known == name), None) or self._id(
            "vo"
        )
        self.volumes[volume_id] = name
        return {"volume_id": volume_id}

    def on_mount_get_or_create(self, request: Any) -> dict[str, Any]:
        self.files |= {file.filename for file in request.files}
        return {"mount_id": self._id("mo")}

    def on_mount_batched_check_existence(self, _: Any) -> dict[str, Any]:
        return {}

    def on_mount_put_file(self, _: Any) -> dict[str, Any]:
        return {"exists": True}

    def on_image_get_or_create(self, request: Any) -> dict[str, Any]:
        image_id = self._id("im")
        self.images[image_id] = request.image
        return {"image_id": image_id, "result": {"status": _SUCCESS}}

    def on_function_precreate(self, request: Any) -> dict[str, Any]:
        function_id = self.ids[request.function_name] = self._id("fu")
        return {"function_id": function_id, "handle_metadata": {"function_name": request.function_name}}

    def on_function_create(self, request: Any) -> dict[str, Any]:
        name = request.function.function_name
        self.functions[name] = request.function
        return {"function_id": self.ids[name], "handle_metadata": self.handle(name), "function_data": self._data(name)}

    def on_class_create(self, _: Any) -> dict[str, Any]:
        self.ids["Tunnel"] = "cs-1"
        return {"class_id": "cs-1", "handle_metadata": {}}

    # Calls that call functions.

    def on_class_get(self, request: Any) -> dict[str, Any]:
        name = f"{request.object_tag}.*"
        if name not in self.functions:
            raise NotFoundError(f"App {request.app_name!r} not found")
        return {
            "class_id": self.ids[request.object_tag],
            "handle_metadata": {"class_function_id": self.ids[name], "class_function_metadata": self.handle(name)},
        }

    def on_function_get(self, request: Any) -> dict[str, Any]:
        name = request.object_tag
        return {"function_id": self.ids[name], "handle_metadata": self.handle(name), "function": self._data(name)}

    def on_function_bind_params(self, request: Any) -> dict[str, Any]:
        function_id = f"{request.function_id}-{request.serialized_params.hex()}"
        self.bound[function_id] = request.serialized_params
        return {"bound_function_id": function_id, "handle_metadata": self.handle("Tunnel.*")}

    def on_function_map(self, request: Any) -> dict[str, Any]:
        [put] = request.pipelined_inputs
        call_id, input_id = self._id("fc"), self._id("in")
        item = api_pb2.FunctionGetInputsItem(input_id=input_id, input=put.input, function_call_id=call_id)
        self._calls[call_id] = Call(request.function_id, item)
        self.called.put(request.function_id)
        self._waiting.put(self._calls[call_id])
        return {"function_call_id": call_id, "pipelined_inputs": [{"idx": put.idx, "input_id": input_id}]}

    def on_function_get_outputs(self, request: Any) -> dict[str, Any]:
        try:
            output = self._calls[request.function_call_id].outputs.get(timeout=min(request.timeout, _POLL_SECONDS))
        except Empty:
            return {"last_entry_id": request.last_entry_id}
        return {"outputs": [output], "last_entry_id": "1-1"}

    # Calls from within a container.

    def on_container_hello(self, _: Any) -> dict[str, Any]:
        return {}

    def on_container_heartbeat(self, _: Any) -> dict[str, Any]:
        return {}

    def on_container_server_lifecycle_ready(self, _: Any) -> dict[str, Any]:
        self.ready.set()
        return {}

    def on_function_get_inputs(self, _: Any) -> dict[str, Any]:
        try:
            return {"inputs": [self._waiting.get(timeout=_POLL_SECONDS).item]}
        except Empty:
            return {}

    def on_function_put_outputs(self, request: Any) -> dict[str, Any]:
        for result in request.outputs:
            output = api_pb2.FunctionGetOutputsItem(
                result=result.result, input_id=result.input_id, data_format=result.data_format
            )
            for call in self._calls.values():
                if call.item.input_id == result.input_id:
                    call.outputs.put(output)
        return {}

    def on_task_result(self, request: Any) -> dict[str, Any]:
        self.failures.append(request.result.exception)
        return {}

    def on_volume_commit(self, request: Any) -> dict[str, Any]:
        self.committed.append(self.volumes[request.volume_id])
        return {"skip_reload": True}

    def on_volume_reload(self, request: Any) -> dict[str, Any]:
        self.reloaded.put(self.volumes[request.volume_id])
        return {}

    def on_tunnel_start(self, request: Any) -> dict[str, Any]:
        self.tunnels.append(request)
        host, port = self.tunnel
        return {"host": host, "port": port}

    def on_tunnel_stop(self, request: Any) -> dict[str, Any]:
        self.tunnels[:] = [tunnel for tunnel in self.tunnels if tunnel.port != request.port]
        return {"exists": True}

    def on_dict_get_or_create(self, _: Any) -> dict[str, Any]:
        return {"dict_id": "di-1"}

    def on_dict_update(self, request: Any) -> dict[str, Any]:
        self.entries |= {entry.key: entry.value for entry in request.updates}
        return {"created": True}

    def on_dict_get(self, request: Any) -> dict[str, Any]:
        value = self.entries.get(request.key)
        return {"found": value is not None, "value": value}

    def on_dict_pop(self, request: Any) -> dict[str, Any]:
        return {"found": True, "value": self.entries.pop(request.key)}

    def _data(self, name: str) -> api_pb2.FunctionData:
        ranked = api_pb2.FunctionData.RankedFunction(function=self.functions[name])
        return api_pb2.FunctionData(ranked_functions=[ranked])

    def _id(self, kind: str) -> str:
        return f"{kind}-{next(self._numbers)}"


@contextmanager
def run_cloud() -> Iterator[Cloud]:
    """Runs a cloud on the loopback interface until the end of the block."""
    cloud = Cloud()
    with ThreadPoolExecutor(32) as threads:
        server = grpc.server(threads, options=(("grpc.so_reuseport", 0),))
        server.add_generic_rpc_handlers((cloud,))
        cloud.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        try:
            yield cloud
        finally:
            cloud.disconnected.set()
            server.stop(None).wait()
