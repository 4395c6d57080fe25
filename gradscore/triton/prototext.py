"""Protobuf's text format, read as plain values: as much of it as configurations such as Triton's are written in."""

import json
import re
from typing import Any

_TOKEN = re.compile(r'\s*(?:#[^\n]*\n\s*)*("(?:[^"\\\n]|\\.)*"|[\w.+-]+|[\[\]{}:,;])\s*')


def parse(text: str) -> dict[str, list[Any]]:
    """Return a message as values by field name; each is a list, since any field may repeat.

    Strings come without their quotes, numbers and enumerators as they are written, messages as dictionaries.

    Raises
    ------
    ValueError
        The text is not in this format, or ends too early.
    """
    tokens, end = [], 0
    while match := _TOKEN.match(text, end):
        tokens.append(match[1])
        end = match.end()
    if text[end:].strip() and not text[end:].startswith("#"):
        raise ValueError(f"unexpected {text[end : end + 20]!r}")
    try:
        return _message(tokens[::-1], "")
    except IndexError as error:
        raise ValueError("it ends too early") from error


def _message(tokens: list[str], closing: str) -> dict[str, list[Any]]:
    """Read fields off the end of the reversed tokens, up to the closing brace."""
    fields: dict[str, list[Any]] = {}
    while tokens if not closing else tokens[-1] != closing:
        name = tokens.pop()
        if not name.isidentifier():
            raise ValueError(f"{name!r} is no field's name")
        if tokens[-1] == ":":
            tokens.pop()
        fields.setdefault(name, []).extend(_values(tokens))
        if tokens and tokens[-1] in ",;":
            tokens.pop()
    if closing:
        tokens.pop()
    return fields


def _values(tokens: list[str]) -> list[Any]:
    """Read one value, or a list of them in brackets."""
    if tokens[-1] != "[":
        return [_value(tokens)]
    tokens.pop()
    values = []
    while tokens[-1] != "]":
        values.append(_value(tokens))
        if tokens[-1] == ",":
            tokens.pop()
    tokens.pop()
    return values


def _value(tokens: list[str]) -> Any:
    first = tokens.pop()
    if first == "{":
        return _message(tokens, "}")
    if first in "[]}:,;":
        raise ValueError(f"a value is missing before {first!r}")
    return json.loads(first) if first.startswith('"') else first
