"""Tables of the measurements, for a terminal, a Markdown file or JSON."""

import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import gradscore_kernels as kernels

from gradscore.bench.growth import GrowthRow
from gradscore.bench.kernels import KernelRow
from gradscore.bench.scoring import ScoringRow
from gradscore.bench.workloads import BENCHMARK_MODELS

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]

PACKAGES = ("gradscore", "numpy", "numba", "onnxruntime", "torch", "backpack-for-pytorch", "gradient-metrics", "scipy")


def kernel_table(rows: Sequence[KernelRow]) -> Table:
    """Return the headings and cells of the table of kernels."""
    headings = ("case", "back end", "median", "spread", "rate", "of the limit")
    cells: list[tuple[str, ...]] = [
        (
            row.case,
            row.backend,
            _duration(row.timing.median),
            f"{row.timing.spread:.0%}",
            f"{row.rate:.3g} {row.unit}",
            f"{row.share:.2f} {row.limit}",
        )
        for row in rows
    ]
    return headings, cells


def scoring_table(rows: Sequence[ScoringRow]) -> Table:
    """Return the headings and cells of the table of scoring.

    Ratios are to gradscore's time on the same model.
    """
    headings = ("model", "way", "gives", "µs per input", "median", "spread", "× gradscore", "peak memory")
    own = {row.model: row.timing.best for row in rows if row.candidate == "gradscore" and row.timing}
    cells: list[tuple[str, ...]] = []
    for row in rows:
        title = f"{BENCHMARK_MODELS[row.model].title}, batch {row.batch}"
        if row.timing is None:
            cells.append((title, row.candidate, row.gives, row.note, "", "", "", ""))
            continue
        ratio = f"{row.timing.best / own[row.model]:.2f}" if row.model in own else ""
        median = f"{row.timing.median / row.batch * 1e6:,.1f}"
        memory = f"{row.memory.peak / 1e6:,.0f} MB" if row.memory else ""
        spread = f"{row.timing.spread:.0%}"
        cells.append((title, row.candidate, row.gives, f"{row.microseconds:,.1f}", median, spread, ratio, memory))
    return headings, cells


def growth_table(rows: Sequence[GrowthRow]) -> Table:
    """Return the headings and cells of the table of larger and larger calls."""
    headings = ("inputs in one call", "µs per input", "median", "spread", "memory added", "scores among it")
    cells: list[tuple[str, ...]] = [
        (
            f"{row.samples:,}",
            f"{row.microseconds:,.1f}",
            f"{row.timing.median / row.samples * 1e6:,.1f}",
            f"{row.timing.spread:.0%}",
            f"{row.added / 1e6:,.1f} MB",
            f"{row.scores / 1e6:,.1f} MB",
        )
        for row in rows
    ]
    return headings, cells


def markdown(table: Table) -> str:
    """Return a table in Markdown."""
    headings, cells = table
    lines = [headings, tuple("---" for _ in headings), *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def plain(rows: Sequence[KernelRow] | Sequence[ScoringRow] | Sequence[GrowthRow]) -> list[dict[str, Any]]:
    """Return rows as plain values for JSON."""
    return [asdict(row) for row in rows]


def machine(threads: int) -> dict[str, Any]:
    """Return the machine and the package versions of a measurement."""
    return {
        "processor": _processor(),
        "system": platform.system(),
        "python": platform.python_version(),
        "threads": threads,
        "simd": kernels.simd_level(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _duration(seconds: float) -> str:
    return f"{seconds * 1e3:,.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:,.3g} µs"
