"""Run both benchmarks and write tools/results/benchmark.{json,md,svg}, the source of the published numbers.

Usage: python -m tools.benchmark [--threads N] [--repeats N]. It takes minutes. Do not use the machine meanwhile.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gradscore_kernels import usable_cores

from gradscore.bench.chart import save_chart
from gradscore.bench.growth import GrowthRow, measure_growth
from gradscore.bench.kernels import SCIPY, SUM, KernelRow, measure_kernels
from gradscore.bench.scoring import ScoringRow, measure_scoring
from gradscore.bench.tables import growth_table, kernel_table, machine, markdown, plain, scoring_table
from gradscore.files.writing import replacing

RESULTS = Path(__file__).parent / "results" / "benchmark"


@dataclass(frozen=True)
class Measured:
    """All rows of one run."""

    kernels: Sequence[KernelRow]
    scoring: Sequence[ScoringRow]
    growth: Sequence[GrowthRow]

    def times(self, model: str, slow: str, fast: str = "gradscore") -> float | None:
        """Return how many times faster one way is than another."""
        best = {row.candidate: row.timing.best for row in self.scoring if row.model == model and row.timing}
        return best[slow] / best[fast] if slow in best and fast in best else None

    def part(self, model: str, of: str) -> float | None:
        """Return gradscore's time divided by the time of another way."""
        times = self.times(model, of)
        return None if times is None else 1 / times

    def kernel(self, case: str, backend: str) -> KernelRow | None:
        """Return the row of a kernel on a back end."""
        return next((row for row in self.kernels if (row.case, row.backend) == (case, backend)), None)

    def share(self, case: str, backend: str = "native") -> float | None:
        """Return the rate of a kernel divided by the machine's limit."""
        row = self.kernel(case, backend)
        return row.share if row else None

    def against(self, case: str, other: str, backend: str = "native") -> float | None:
        """Return how many times faster a back end is than another."""
        row, slow = self.kernel(case, backend), self.kernel(case, other)
        return slow.timing.best / row.timing.best if row and slow else None

    def slowest_numba(self) -> float | None:
        """Return the largest ratio of numba's time to native's over all cases."""
        ratios = [self.against(row.case, "numba") for row in self.kernels if row.backend == "native"]
        return max((ratio for ratio in ratios if ratio is not None), default=None)

    def added_memory(self, model: str) -> float | None:
        """Return the peak memory relative to that of the signals graph alone, minus 1."""
        peak = {row.candidate: row.memory.peak for row in self.scoring if row.model == model and row.memory}
        return peak["gradscore"] / peak["signals alone"] - 1 if {"gradscore", "signals alone"} <= set(peak) else None

    def growth_of_time(self) -> float:
        """Return the time per input of the largest call divided by that of the smallest."""
        return self.growth[-1].microseconds / self.growth[0].microseconds

    def growth_of_memory(self) -> float:
        """Return the memory that an input adds, divided by the size of its scores.

        It is measured from the smallest to the largest call.
        """
        low, high = self.growth[0], self.growth[-1]
        return (high.added - low.added) / (high.scores - low.scores)


@dataclass(frozen=True)
class Target:
    """The required and the desired value of a number.

    It must be at least that if `least`, else at most.
    """

    what: str
    value: Callable[[Measured], float | None]
    must: float
    aim: float
    least: bool

    def judged(self, measured: Measured) -> tuple[str, ...]:
        """Return the cells of the table of targets."""
        value, sign = self.value(measured), "≥" if self.least else "≤"
        if value is None:
            return self.what, f"{sign} {self.must:g}", f"{sign} {self.aim:g}", "not measured", ""
        reached = [value >= bar if self.least else value <= bar for bar in (self.must, self.aim)]
        verdict = "aim" if reached[1] else "must" if reached[0] else "missed"
        return self.what, f"{sign} {self.must:g}", f"{sign} {self.aim:g}", f"{value:.3g}", verdict


MODELS = (
    ("paper's CNN", "paper-cnn"),
    ("ResNet-18", "resnet18"),
    ("MLP", "mlp"),
    ("transformer", "transformer"),
)
CONVS = ("conv 16→16 3×3 13²", "conv 64→64 3×3 16²")
TARGETS = (
    Target(
        "paper's CNN: times faster than torch vmap + statistics",
        lambda m: m.times("paper-cnn", "torch vmap"),
        6,
        12,
        True,
    ),
    Target(
        "paper's CNN: times faster than BackPACK + statistics", lambda m: m.times("paper-cnn", "BackPACK"), 2, 4, True
    ),
    Target(
        "paper's CNN: part of torch forward+backward",
        lambda m: m.part("paper-cnn", "torch forward+backward"),
        0.8,
        0.4,
        False,
    ),
    Target(
        "ResNet-18: part of torch forward+backward",
        lambda m: m.part("resnet18", "torch forward+backward"),
        1.3,
        0.9,
        False,
    ),
    Target(
        "ResNet-18: times faster than a torch loop + statistics",
        lambda m: m.times("resnet18", "torch loop"),
        5,
        8,
        True,
    ),
    Target("MLP: part of torch forward+backward", lambda m: m.part("mlp", "torch forward+backward"), 1.1, 0.8, False),
    Target(
        "transformer: part of torch forward+backward",
        lambda m: m.part("transformer", "torch forward+backward"),
        1.5,
        1.0,
        False,
    ),
    *(
        Target(
            f"{title}: peak memory over the signals graph alone",
            lambda m, model=model: m.added_memory(model),
            0.05,
            0.01,
            False,
        )
        for title, model in MODELS
    ),
    *(
        Target(f"native {case}: part of sgemm's rate, one core", lambda m, case=case: m.share(case), 0.6, 0.9, True)
        for case in CONVS
    ),
    Target(
        "native direct 64 MB: part of a plain sum's bandwidth, one core",
        lambda m: m.against("direct 64 MB", SUM),
        0.6,
        0.9,
        True,
    ),
    Target(
        "native direct 64 MB: times faster than numpy + scipy.stats",
        lambda m: m.against("direct 64 MB", SCIPY),
        30,
        100,
        True,
    ),
    Target(
        "native direct 256 × 16: times faster than numpy + scipy.stats",
        lambda m: m.against("direct 256 × 16", SCIPY),
        30,
        100,
        True,
    ),
    Target("numba: times slower than native, worst case", Measured.slowest_numba, 4, 1.5, False),
    Target("64 times the inputs in one call: time per input grows to", Measured.growth_of_time, 1.1, 1.0, False),
    Target("64 times the inputs in one call: memory added, in scores", Measured.growth_of_memory, 3, 2, False),
)


def main() -> None:
    """Measure, and write the three files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=usable_cores(), help="threads for every way of scoring")
    parser.add_argument("--repeats", type=int, default=9, help="repetitions of each measurement")
    options = parser.parse_args()
    measured = Measured(
        measure_kernels(repeats=max(15, options.repeats)),
        measure_scoring(threads=options.threads, repeats=options.repeats),
        measure_growth(threads=options.threads, repeats=options.repeats),
    )
    where = machine(options.threads)
    RESULTS.parent.mkdir(exist_ok=True)
    content = {
        "machine": where,
        "kernels": plain(measured.kernels),
        "scoring": plain(measured.scoring),
        "growth": plain(measured.growth),
    }
    _write(".json", json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    _write(".md", _report(measured, where))
    save_chart(measured.scoring, RESULTS.with_suffix(".svg"))
    print(RESULTS.with_suffix(".md").read_text(encoding="utf-8"))


def _report(measured: Measured, where: dict[str, object]) -> str:
    targets = (("target", "must", "aim", "measured", "reached"), [target.judged(measured) for target in TARGETS])
    packages = ", ".join(f"{name} {number}" for name, number in dict(where["packages"]).items())  # type: ignore[call-overload]  # JSON
    return "\n".join(
        [
            "# Benchmark",
            "",
            f"{where['processor']}, {where['threads']} threads, Python {where['python']}, {packages}. Written by "
            "`python -m tools.benchmark`.",
            "Fastest of interleaved turns, every way with the same number of threads, no batch normalisation folded. A turn is "
            "the mean of the runs in 50 ms, at least one, after a run that is not counted. Spread: interquartile range divided "
            "by the median.",
            "",
            "## Targets",
            "",
            markdown(targets),
            "## Scoring",
            "",
            markdown(scoring_table(measured.scoring)),
            "## Growth with the number of inputs, paper's CNN",
            "",
            markdown(growth_table(measured.growth)),
            "## Kernels, one core",
            "",
            markdown(kernel_table(measured.kernels)),
        ]
    )


def _write(suffix: str, text: str) -> None:
    with replacing(RESULTS.with_suffix(suffix), overwrite=True) as part:
        part.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
