"""The settings of `doherty serve`: flags, environment variables DOHERTY_*, and entries of a TOML file."""

import os
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from doherty_engine import DEFAULT_ENGINE
from doherty_service.settings._addresses import read_networks
from doherty_service.settings._config_file import read_config
from doherty_service.settings._environment import CONFIG_VARIABLE, PREFIX, unknown_variables

_MAX_INT = 2**31 - 1
"""The largest value that gRPC's channel options and the fields of GetModel can hold."""

Count = Annotated[int, Field(ge=0, le=_MAX_INT)]
PositiveCount = Annotated[int, Field(ge=1, le=_MAX_INT)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
LogLevel = Literal["debug", "info", "warning", "error"]
Exposure = Literal["open", "keyed", "off"]
_EXPOSURES = "open (to everyone), keyed (with keys_file, only to callers with a valid key) or off"


class _EnvironmentSource(EnvSettingsSource):
    """Reads DOHERTY_* variables. Misspelt ones keep their full names, so that they are reported as unknown settings."""

    def __call__(self) -> dict[str, Any]:
        return super().__call__() | dict.fromkeys(unknown_variables(os.environ, self.settings_cls.model_fields))


class _FileSource(InitSettingsSource):
    """Holds the contents of the TOML file. pydantic-settings' own TOML source ignores a missing file."""


class Settings(BaseSettings):
    """The settings of one server.

    Flags override environment variables, which override the config file. Unknown names are errors.
    """

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, protected_namespaces=()
    )

    engine: str = Field(default=DEFAULT_ENGINE, description="The engine that generates answers.")
    model: str = Field(
        default="", description="A path or a Hugging Face Hub id; empty selects the engine's default model."
    )
    engine_option: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict, description="An engine option, as KEY=VALUE; can be repeated."
    )
    listen: str = Field(
        default="127.0.0.1:50051", description="The address to listen on, as HOST:PORT; port 0 picks a free port."
    )
    listen_when_ready: bool = Field(
        default=False,
        description="Accept connections only while the server is ready, for load balancers whose health checks only "
        "connect. Works only on Linux.",
    )
    metrics_listen: str = Field(
        default="",
        description="The address that serves Prometheus metrics over plain HTTP, as HOST:PORT; empty disables it. "
        "Anyone who can reach it can read the metrics, including the names of keys.",
    )
    insecure: bool = Field(default=False, description="Allow plaintext on a non-loopback address.")
    tls_cert: Path | None = Field(
        default=None, description="The certificate chain, a PEM file; reloaded when it changes."
    )
    tls_key: Path | None = Field(default=None, description="The certificate's private key, a PEM file.")
    tls_client_ca: Path | None = Field(
        default=None,
        description="The certificate authorities that must have issued clients' certificates (mTLS), a PEM file.",
    )
    keys_file: Path | None = Field(
        default=None,
        description="The file of API keys, as written by `doherty keys`. If set, every call needs a key, except calls "
        "of services that are open.",
    )
    key_max_concurrent: PositiveCount | None = Field(
        default=None,
        description="Maximum number of requests that run or wait at the same time, for each key without its own limit.",
    )
    key_per_minute: PositiveCount | None = Field(
        default=None,
        description="Maximum number of requests per minute, for each key without its own limit.",
    )
    key_tokens_per_minute: PositiveCount | None = Field(
        default=None,
        description="Maximum number of tokens per minute, prompts and answers together, for each key without its own "
        "limit.",
    )
    health: Exposure = Field(default="open", description=f"Who may call the health service: {_EXPOSURES}.")
    reflection: Exposure = Field(
        default="keyed", description=f"Who may call reflection, which describes the API to tools: {_EXPOSURES}."
    )
    channelz: Exposure = Field(
        default="keyed", description=f"Who may call channelz, which shows all connections: {_EXPOSURES}."
    )
    load_reports: Exposure = Field(
        default="keyed",
        description=f"Who may call the ORCA service, which reports load to load balancers: {_EXPOSURES}. Unless it is "
        "off, the trailing metadata of each call contains a report, too.",
    )
    transport: Literal["grpcio", "http2"] = Field(
        default="grpcio",
        description="What carries the calls: grpcio is gRPC's own library; http2 is a faster transport of our own. It "
        "is experimental and has no channelz.",
    )
    door: Literal["none", "smg"] = Field(
        default="none",
        description="A second port for a gateway: smg implements the vLLM interface that the gateway SMG calls. It "
        "requires no key.",
    )
    door_listen: str = Field(default="127.0.0.1:50052", description="The address of the door, as HOST:PORT.")
    system_prompt: str = Field(default="", description="The system message for conversations that have none.")
    allow_control_tokens: bool = Field(
        default=False,
        description="Interpret the model's control tokens in the text of messages. Anyone who writes a message can "
        "then forge other messages.",
    )
    share_prefix_cache: bool = Field(
        default=False,
        description="Share cached prompt prefixes among all keys. The holders of keys can then find out each other's "
        "prompts.",
    )
    max_output_tokens: PositiveCount = Field(default=1024, description="The default for stopping.max_output_tokens.")
    temperature: float | None = Field(default=None, ge=0, le=2, description="The default for sampling.temperature.")
    top_p: float | None = Field(default=None, gt=0, le=1, description="The default for sampling.top_p.")
    max_queue_wait: Seconds = Field(
        default=10,
        description="Maximum estimated wait for a slot, in seconds. A request that would wait longer is refused.",
    )
    max_queued_requests: Count = Field(
        default=10_000,
        description="Maximum number of requests that wait for a slot, regardless of the estimated wait.",
    )
    max_queued_bytes: Count = Field(
        default=16 << 20,
        description="Maximum total size of the requests that wait for a slot, in bytes.",
    )
    max_message_bytes: int = Field(
        default=4 << 20, ge=1024, le=_MAX_INT, description="Maximum size of a message from a caller, in bytes."
    )
    max_connections: int = Field(
        default=1000,
        ge=1,
        le=_MAX_INT - 1,
        description="Maximum number of connections. Each takes a file descriptor.",
    )
    trusted_proxies: str = Field(
        default="",
        description="Addresses or networks of proxies that many callers share, separated by commas. A proxy may have "
        "more connections that have not sent a valid key than other addresses.",
    )
    max_concurrent_streams: PositiveCount = Field(
        default=512, description="Maximum number of concurrent calls on one connection."
    )
    idle_timeout: float = Field(
        default=600, ge=1, le=_MAX_INT // 1000, description="Close a connection after this many seconds without a call."
    )
    max_connection_age: float = Field(
        default=0,
        ge=0,
        le=_MAX_INT // 1000,
        description="Accept no new calls on a connection that is this many seconds old (plus or minus 10 %), so that "
        "its client reconnects and discovers added servers. Calls in progress may finish. 0 means never.",
    )
    receive_timeout: PositiveSeconds = Field(
        default=30,
        description="Maximum time for a request to arrive, and for a MultiplexGenerate to have no request, in seconds.",
    )
    latency_window: PositiveSeconds = Field(
        default=300,
        le=_MAX_INT,
        description="The period that GetLatency covers, in seconds.",
    )
    step_timeout: PositiveSeconds = Field(
        default=30,
        description="Restart the engine if it completes no step for this many seconds while requests run.",
    )
    canary_interval: Seconds = Field(
        default=60,
        description="Test the engine with a one-token request after this many seconds without work. 0 means never.",
    )
    max_engine_failures: Count = Field(
        default=5,
        description="Exit if the engine fails more often than this within ten minutes.",
    )
    stall_timeout: PositiveSeconds = Field(
        default=30,
        description="End a request if its caller leaves a message unread for this many seconds.",
    )
    drain_delay: Seconds = Field(
        default=0,
        description="How long the server still accepts requests after SIGTERM, in seconds, while health checks report "
        "NOT_SERVING and load balancers react.",
    )
    drain_grace: Seconds = Field(
        default=30,
        description="How long requests may take to finish after SIGTERM and drain_delay, in seconds.",
    )
    log_level: LogLevel = Field(default="info", description="The lowest level that is logged.")

    @field_validator("engine_option", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        """Parses KEY=VALUE pairs: a list of pairs from flags, one string with semicolons from the environment."""
        if isinstance(value, dict):
            return {
                key: str(option).lower() if isinstance(option, bool) else str(option) for key, option in value.items()
            }
        pairs = value.split(";") if isinstance(value, str) else value
        if not isinstance(pairs, (list, tuple)):
            return value
        options: dict[str, str] = {}
        for pair in pairs:
            key, separator, text = str(pair).partition("=")
            if not separator or not key:
                raise ValueError(f"{pair!r} is not KEY=VALUE")
            options[key.strip()] = text
        return options

    @field_validator("listen", "metrics_listen", "door_listen")
    @classmethod
    def _host_and_port(cls, value: str, info: ValidationInfo) -> str:
        if not value and info.field_name == "metrics_listen":
            return value
        host, separator, port = value.rpartition(":")
        if not separator or not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 - the largest port
            raise ValueError("must be HOST:PORT")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: str) -> str:
        read_networks(value)
        return value

    @model_validator(mode="after")
    def _whole_certificate(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key must be set together")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca needs tls_cert and tls_key")
        return self

    @model_validator(mode="after")
    def _channelz_has_a_transport(self) -> Self:
        if self.transport == "http2" and "channelz" in self.model_fields_set and self.channelz != "off":
            raise ValueError("channelz needs the transport grpcio; set channelz to off or transport to grpcio")
        return self

    @property
    def trusted_networks(self) -> list[IPv4Network | IPv6Network]:
        """`trusted_proxies`, parsed."""
        return read_networks(self.trusted_proxies)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings' signature
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Returns flags, environment variables and the file that DOHERTY_CONFIG names, in order of precedence."""
        path = os.environ.get(CONFIG_VARIABLE)
        if not path:
            return init_settings, _EnvironmentSource(settings_cls)
        return init_settings, _EnvironmentSource(settings_cls), _FileSource(settings_cls, read_config(Path(path)))
