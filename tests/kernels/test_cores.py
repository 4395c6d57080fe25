"""The number of cores that a process may use, on fake trees of /proc and /sys."""

import math
import os

import gradscore_kernels as gk
import pytest
from gradscore_kernels import _cores

GROUPS = "proc/self/cgroup"


@pytest.fixture(autouse=True)
def nothing_remembered():
    gk.usable_cores.cache_clear()
    yield
    gk.usable_cores.cache_clear()


def tree(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def v1(quota, period="100000", folder="sys/fs/cgroup/cpu,cpuacct"):
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}\n", f"{folder}/cpu.cfs_period_us": f"{period}\n"}


TREES = {
    "nothing": ({}, math.inf),
    "version 2": ({GROUPS: "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
    "version 2, no limit": ({GROUPS: "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, math.inf),
    "version 2, the group around it": (
        {
            GROUPS: "0::/a.slice/b.scope\n",
            "sys/fs/cgroup/a.slice/cpu.max": "200000 100000\n",
            "sys/fs/cgroup/a.slice/b.scope/cpu.max": "max 100000\n",
        },
        2,
    ),
    "version 2, the host's path": ({GROUPS: "0::/docker/1f\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5),
    "version 2, outside the mount": ({GROUPS: "0::/../../a\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3),
    "version 1": ({GROUPS: "4:cpu,cpuacct:/\n1:memory:/m\n", **v1(250_000)}, 2.5),
    "version 1, one name": ({GROUPS: "4:cpu:/\n", **v1(250_000, folder="sys/fs/cgroup/cpu")}, 2.5),
    "version 1, no limit": ({GROUPS: "4:cpu,cpuacct:/\n", **v1(-1)}, math.inf),
    "version 1, a group in another": (
        {GROUPS: "4:cpu,cpuacct:/a/b\n", **v1(-1), **v1(400_000, folder="sys/fs/cgroup/cpu,cpuacct/a/b")},
        4,
    ),
    "version 1, other controllers alone": ({GROUPS: "2:cpuset:/\n", **v1(100_000)}, math.inf),
    "both versions": (
        {GROUPS: "4:cpu:/\n0::/\n", **v1(300_000, folder="sys/fs/cgroup/cpu"), "sys/fs/cgroup/cpu.max": "2000 1000\n"},
        2,
    ),
    "nonsense": ({GROUPS: "cpu\n\n0::/\n", "sys/fs/cgroup/cpu.max": "many few\n"}, math.inf),
    "no period": ({GROUPS: "0::/\n", "sys/fs/cgroup/cpu.max": "100000 0\n"}, math.inf),
}


@pytest.mark.parametrize("name", TREES)
def test_a_quota_is_the_least_of_all_groups(name, tmp_path):
    files, quota = TREES[name]
    assert _cores._quota(tree(tmp_path, files)) == quota


@pytest.mark.parametrize(("quota", "cores"), [("50000", 1), ("100000", 1), ("250000", 3), ("max", 64), ("9900000", 64)])
def test_cores_are_the_quota_rounded_up_but_not_more_than_the_affinity(quota, cores, tmp_path, monkeypatch):
    root = tree(tmp_path, {GROUPS: "0::/\n", "sys/fs/cgroup/cpu.max": f"{quota} 100000\n"})
    monkeypatch.setattr(_cores, "_ROOT", root)
    monkeypatch.setattr(_cores, "_affinity", lambda: 64)
    assert gk.usable_cores() == cores


def test_affinity_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(_cores, "_ROOT", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 9}, raising=False)
    assert gk.usable_cores() == 3
    gk.usable_cores.cache_clear()
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert gk.usable_cores() == 1


def test_this_process_has_cores():
    assert 1 <= gk.usable_cores() <= (os.cpu_count() or 1)


def test_kernels_take_all_usable_cores_unless_told(monkeypatch):
    from gradscore_kernels.backends import registry

    monkeypatch.setattr(registry, "usable_cores", lambda: 7)
    assert (registry.workers(None), registry.workers(3)) == (7, 3)
