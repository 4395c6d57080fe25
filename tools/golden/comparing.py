"""What differs between two recordings, thing by thing."""

from collections.abc import Iterator
from typing import Any

MOST_SHOWN = 12  # differences of one thing


def show(one: dict[str, Any], other: dict[str, Any]) -> int:
    """Print every difference between two recordings, and how many things are equal; returns how many differ."""
    for key in sorted(one["made_on"].keys() | other["made_on"].keys()):
        if (here := one["made_on"].get(key)) != (there := other["made_on"].get(key)):
            print(f"note: recorded with {key} {here}, then {there}")
    names = sorted(one["things"].keys() | other["things"].keys())
    found = {name: list(_differences(one["things"].get(name), other["things"].get(name))) for name in names}
    differing = {name: differences for name, differences in found.items() if differences}
    for name, differences in differing.items():
        print(f"\n{name}")
        for line in differences[:MOST_SHOWN]:
            print(f"  {line}")
        if len(differences) > MOST_SHOWN:
            print(f"  and {len(differences) - MOST_SHOWN} more")
    print(f"\n{len(names) - len(differing)} things are equal, {len(differing)} differ")
    return len(differing)


def _differences(one: Any, other: Any) -> Iterator[str]:
    """Yield a line for each leaf that is not the same in both."""
    here, there = dict(_leaves(one)), dict(_leaves(other))
    for place in dict.fromkeys((*here, *there)):
        if place not in there:
            yield f"{place}: {_short(here[place])}, then missing"
        elif place not in here:
            yield f"{place}: missing, then {_short(there[place])}"
        elif here[place] != there[place]:
            yield f"{place}: {_short(here[place])}, then {_short(there[place])}"


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield each plain value with its type and place; a container's length is a leaf of its own."""
    if isinstance(value, dict | list):
        yield f"{place}/", f"{type(value).__name__} of {len(value)}"
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(inner, f"{place}/{key}")
    elif value is not None or place:
        yield place, f"{type(value).__name__} {value!r}"


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:97]}..."
