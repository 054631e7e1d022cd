"""The commands `doherty serve` and `doherty keys`."""

from doherty_service.command._keys import keys
from doherty_service.command._serve import serve

__all__ = ["keys", "serve"]
