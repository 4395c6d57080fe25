"""How many processor cores this process may use, by its CPU affinity and control groups."""

import math
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_ROOT = Path("/")
_OWN_GROUPS, _MOUNT = "proc/self/cgroup", "sys/fs/cgroup"


@cache
def usable_cores() -> int:
    """Return how many cores this process may use.

    The number is that of its CPU affinity, or less if its control groups allow less. A quota is rounded up: a container
    that may use two and a half cores has three. The answer is computed once per process.
    """
    quota = _quota(_ROOT)
    return _affinity() if quota == math.inf else min(_affinity(), max(1, math.ceil(quota)))


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quota(root: Path) -> float:
    """Return the smallest limit in cores of this process's control groups and their parents.

    Infinity means no limit. `root` is the folder that holds /proc and /sys.
    """
    return min((quota for folder in _groups(root) for quota in _quotas(folder)), default=math.inf)


def _groups(root: Path) -> Iterator[Path]:
    """Yield the folders of this process's CPU groups and of all their parents.

    A line of /proc/self/cgroup is `id:controllers:path`. Version 2 has no controllers. In a container the path may be the
    host's. Then only the mount itself exists, and it is the container's group.
    """
    for line in _text(root / _OWN_GROUPS).splitlines():
        _, _, named = line.partition(":")
        controllers, _, path = named.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        parts = [part for part in Path(path).parts if part not in ("/", "..")]
        for mount in dict.fromkeys((controllers, "cpu")) if controllers else ("",):
            yield from (root.joinpath(_MOUNT, mount, *parts[:depth]) for depth in range(len(parts) + 1))


def _quotas(folder: Path) -> Iterator[float]:
    """Yield a group's limit in cores, if it has one.

    In version 2 `cpu.max` holds quota and period. In version 1 each has its own file.
    """
    first = _text(folder / "cpu.max").split() or _text(folder / "cpu.cfs_quota_us").split()
    period = first[1:2] or _text(folder / "cpu.cfs_period_us").split()
    if first and period and first[0].isdecimal() and period[0].isdecimal() and int(period[0]):
        yield int(first[0]) / int(period[0])  # "max" and −1 mean no limit, and are no decimal numbers


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
