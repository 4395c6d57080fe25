"""Containers: single files that hold many inputs. The module of each kind lists its own file endings."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gradscore.inputs.entries import Listing


@dataclass(frozen=True)
class Reading:
    """How the containers of one call are read: what ids start with, and the orientation of images in idx files."""

    prefix: str
    idx_transposed: bool


Container = Callable[[Path, Reading], Listing]
