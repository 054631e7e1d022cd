"""How `doherty keys` shows a key."""

from collections.abc import Iterator
from dataclasses import asdict

from doherty_service.metrics import KeyUse
from doherty_service.security import ApiKey


def key_as_json(key: ApiKey, use: KeyUse | None = None) -> dict[str, object]:
    """All of a key but the digest of its secret, and what it uses now. A limit that is null is the server's default."""
    content = key.model_dump(mode="json", exclude={"secret_sha256"})
    return content if use is None else {**content, "use": asdict(use)}


def key_line(key: ApiKey, width: int, use: KeyUse | None = None) -> str:
    """One line for a key, whose name is filled up to `width`."""
    line = f"{key.id}  {key.name:<{width}}  {key.created:%Y-%m-%d}  {', '.join(_permissions(key)) or 'no limits'}"
    return line if use is None else f"{line}  [{', '.join(_current_use(use))}]"


def _permissions(key: ApiKey) -> Iterator[str]:
    """Yields the permissions of a key that differ from those of a new key."""
    if key.adapters is not None:
        yield f"adapters {' '.join(key.adapters) or 'none'}"
    if key.max_concurrent is not None:
        yield f"{key.max_concurrent} at a time"
    if key.per_minute is not None:
        yield f"{key.per_minute} a minute"
    if key.operator:
        yield "operator"
    if key.tokens_per_minute is not None:
        yield f"{key.tokens_per_minute} tokens a minute"
    if key.weight != ApiKey.model_fields["weight"].default:
        yield f"weight {key.weight:g}"
    if key.highest_priority != ApiKey.model_fields["highest_priority"].default:
        yield f"at most {key.highest_priority}"


def _current_use(use: KeyUse) -> Iterator[str]:
    yield f"{use.running} running"
    yield f"{use.queued} waiting"
    for limit, share in use.shares.items():
        yield f"{share:.0%} of {limit.replace('_', '-')}"
