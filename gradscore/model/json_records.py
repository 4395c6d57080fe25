"""JSON objects as the fields of a record."""

from collections.abc import Mapping
from typing import Any


def as_fields(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object's members with tuples for lists, as records hold them."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
