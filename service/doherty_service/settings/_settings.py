"""Every setting of `doherty serve`: as a flag, as an environment variable DOHERTY_*, or in a TOML file."""

import codecs
import ipaddress
import os
import tomllib
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
from doherty_service.process import read_file
from doherty_service.settings._environment import CONFIG_VARIABLE, PREFIX, unknown_variables

_MOST_CONFIG_BYTES = 1 << 20

_LARGEST = 2**31 - 1
"""What gRPC's own options and the fields of GetModel can hold."""

LogLevel = Literal["debug", "info", "warning", "error"]
Door = Literal["open", "keyed", "off"]
_DOORS = "open to everybody, keyed (to those whom the services are open to: with keys_file, to holders of a key) or off"


class _Environment(EnvSettingsSource):
    """The variables DOHERTY_*; misspelt ones under their whole names, which are then unknown like any other."""

    def __call__(self) -> dict[str, Any]:
        """The values by the names of their settings."""
        return super().__call__() | dict.fromkeys(unknown_variables(os.environ, self.settings_cls.model_fields))


class _File(InitSettingsSource):
    """What the TOML file says. pydantic-settings' own source passes over a file that is not there."""


def read_config(path: Path) -> dict[str, Any]:
    """Reads the TOML file of settings.

    Raises:
        OSError: it is not there or cannot be read.
        UnfitFileError: it is not a regular file, or is too large.
        ValueError: it is not TOML in UTF-8.
    """
    data = read_file(path, _MOST_CONFIG_BYTES)
    if data.startswith(codecs.BOM_UTF8):
        raise ValueError(
            f"{path} begins with a byte-order mark, which TOML does not allow; save it as UTF-8 without one"
        )
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not TOML: {error}") from error


def _read_networks(text: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Networks, or single addresses, separated by commas.

    Raises:
        ValueError: one is none, or has bits set beyond its prefix.
    """
    return [ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip()]


def is_loopback(listen: str) -> bool:
    """Whether only this machine can reach HOST:PORT."""
    host = listen.rpartition(":")[0].strip("[]")
    # RFC 6761: names under localhost are this machine, in any case, also with the dot of the root.
    name = host.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False  # another name may resolve to anything
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


class Settings(BaseSettings):
    """The settings of one server; a flag beats the environment, and that the file. Unknown names are errors."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, protected_namespaces=()
    )

    engine: str = Field(default=DEFAULT_ENGINE, description="The engine that generates.")
    model: str = Field(default="", description="A path or a hub id; empty takes the engine's default.")
    engine_option: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict, description="An option of the engine, as KEY=VALUE; may be given several times."
    )
    listen: str = Field(default="127.0.0.1:50051", description="The address, as HOST:PORT; port 0 picks one.")
    metrics_listen: str = Field(
        default="",
        description="Where Prometheus reads metrics over plain HTTP, as HOST:PORT; empty is nowhere. Anybody who "
        "reaches it can read them, and names of keys with them.",
    )
    insecure: bool = Field(default=False, description="Allow plaintext on an address other than loopback.")
    tls_cert: Path | None = Field(
        default=None, description="The certificate chain, a PEM file; read again when it changes."
    )
    tls_key: Path | None = Field(default=None, description="The certificate's private key, a PEM file.")
    tls_client_ca: Path | None = Field(
        default=None, description="The authorities that clients must have a certificate of (mTLS), a PEM file."
    )
    keys_file: Path | None = Field(
        default=None,
        description="The file of API keys, which `doherty keys` writes: with it, every call needs one of them.",
    )
    key_max_concurrent: int | None = Field(
        default=None,
        ge=1,
        le=_LARGEST,
        description="How many requests of a key may run or wait at a time, unless it has a limit of its own.",
    )
    key_per_minute: int | None = Field(
        default=None,
        ge=1,
        le=_LARGEST,
        description="How many requests a minute a key may send, unless it has a limit of its own.",
    )
    key_tokens_per_minute: int | None = Field(
        default=None,
        ge=1,
        le=_LARGEST,
        description="How many tokens a minute a key may use, prompts and answers together, unless it has a limit of "
        "its own.",
    )
    health: Door = Field(default="open", description=f"The health service: {_DOORS}.")
    reflection: Door = Field(default="keyed", description=f"Reflection, which tells the contract to tools: {_DOORS}.")
    channelz: Door = Field(default="keyed", description=f"Channelz, which tells of all connections: {_DOORS}.")
    load_reports: Door = Field(
        default="keyed",
        description="Reports of the load for balancers (ORCA), by a service and, unless it is off, with the status of "
        f"each call: {_DOORS}.",
    )
    door: Literal["none", "smg"] = Field(
        default="none",
        description="A second port for a gateway: smg speaks what the gateway SMG asks of vLLM. Callers need no key "
        "there.",
    )
    door_listen: str = Field(default="127.0.0.1:50052", description="The address of the door, as HOST:PORT.")
    system_prompt: str = Field(default="", description="The system message of conversations that have none.")
    allow_control_tokens: bool = Field(
        default=False,
        description="Read the model's control tokens where messages spell them out, not as text; whoever writes a "
        "message can then forge others.",
    )
    share_prefix_cache: bool = Field(
        default=False,
        description="Share cached prefixes of prompts among all keys, whose holders can then find out each other's "
        "prompts.",
    )
    max_output_tokens: int = Field(
        default=1024, ge=1, le=_LARGEST, description="The default of stopping.max_output_tokens."
    )
    temperature: float | None = Field(default=None, ge=0, le=2, description="The default of sampling.temperature.")
    top_p: float | None = Field(default=None, gt=0, le=1, description="The default of sampling.top_p.")
    max_queue_wait: float = Field(
        default=10,
        ge=0,
        allow_inf_nan=False,
        description="How long a request may have to wait for a slot, by estimate, in seconds; one that would wait "
        "longer is refused.",
    )
    max_queued_requests: int = Field(
        default=10_000, ge=0, le=_LARGEST, description="How many requests may wait for a slot, however short the wait."
    )
    max_queued_bytes: int = Field(
        default=16 << 20, ge=0, le=_LARGEST, description="How many bytes of requests may wait for a slot."
    )
    max_message_bytes: int = Field(
        default=4 << 20, ge=1024, le=_LARGEST, description="The largest message taken, in bytes."
    )
    max_connections: int = Field(
        default=1000,
        ge=1,
        le=_LARGEST - 1,
        description="How many connections there may be; each takes a file descriptor.",
    )
    trusted_proxies: str = Field(
        default="",
        description="Addresses or networks, separated by commas, of proxies that many callers come through: they may "
        "have more connections that have shown no key than others.",
    )
    max_concurrent_streams: int = Field(
        default=512, ge=1, le=_LARGEST, description="How many calls a connection may have at a time."
    )
    idle_timeout: float = Field(
        default=600, ge=1, le=_LARGEST // 1000, description="How long a connection may have no call, in seconds."
    )
    max_connection_age: float = Field(
        default=0,
        ge=0,
        le=_LARGEST // 1000,
        description="After how long, give or take 10 %, a connection takes no more calls, so that its client connects "
        "anew and finds servers that were added, in seconds; calls on it may finish; 0 is never.",
    )
    receive_timeout: float = Field(
        default=30,
        gt=0,
        allow_inf_nan=False,
        description="How long a request may take to arrive, and a MultiplexGenerate may have none, in seconds.",
    )
    latency_window: float = Field(
        default=300, gt=0, le=_LARGEST, allow_inf_nan=False, description="How far GetLatency looks back, in seconds."
    )
    step_timeout: float = Field(
        default=30,
        gt=0,
        allow_inf_nan=False,
        description="How long the engine may be silent while requests run before it is started again, in seconds.",
    )
    canary_interval: float = Field(
        default=60,
        ge=0,
        allow_inf_nan=False,
        description="After how long without work the engine is tried out with one token, in seconds; 0 is never.",
    )
    max_engine_failures: int = Field(
        default=5,
        ge=0,
        le=_LARGEST,
        description="How often the engine may fail within ten minutes; then the server ends.",
    )
    stall_timeout: float = Field(
        default=30,
        gt=0,
        allow_inf_nan=False,
        description="How long a caller may leave a message unread before its request is ended, in seconds.",
    )
    drain_delay: float = Field(
        default=0,
        ge=0,
        allow_inf_nan=False,
        description="How long SIGTERM still takes requests in, for load balancers to see the health, in seconds.",
    )
    drain_grace: float = Field(
        default=30, ge=0, allow_inf_nan=False, description="How long SIGTERM lets requests finish, in seconds."
    )
    log_level: LogLevel = Field(default="info", description="The least that is logged.")

    @field_validator("engine_option", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        """Reads KEY=VALUE pairs: a list of them from flags, several with semicolons between from the environment."""
        if isinstance(value, dict):
            return {key: str(one).lower() if isinstance(one, bool) else str(one) for key, one in value.items()}
        pairs = value.split(";") if isinstance(value, str) else value
        if not isinstance(pairs, (list, tuple)):
            return value
        read: dict[str, str] = {}
        for pair in pairs:
            key, separator, text = str(pair).partition("=")
            if not separator or not key:
                raise ValueError(f"{pair!r} is not KEY=VALUE")
            read[key.strip()] = text
        return read

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
        _read_networks(value)
        return value

    @model_validator(mode="after")
    def _whole_certificate(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca needs tls_cert and tls_key")
        return self

    @property
    def trusted_networks(self) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
        """Those of the trusted proxies."""
        return _read_networks(self.trusted_proxies)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.listen)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings' signature
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the environment, then the file that DOHERTY_CONFIG names."""
        path = os.environ.get(CONFIG_VARIABLE)
        if not path:
            return init_settings, _Environment(settings_cls)
        return init_settings, _Environment(settings_cls), _File(settings_cls, read_config(Path(path)))
