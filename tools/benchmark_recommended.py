"""What the recommended features cost: scoring with them and without, in turn in one process, on the benchmark's models.

Usage: python -m tools.benchmark_recommended [--threads N] [--repeats N]. Writes tools/results/recommended.md. Each figure is
the fastest of many turns.
"""

import tempfile
from pathlib import Path

import typer
from gradscore_kernels import usable_cores

from gradscore import Scorer
from gradscore.bench.timing import interleaved
from gradscore.bench.workloads import COMPARED, make_ready

RESULTS = Path(__file__).parent / "results" / "recommended.md"


def main(threads: int = usable_cores(), repeats: int = 15) -> None:
    """Measure, print and write the table."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in COMPARED:
            workload = make_ready(name, Path(folder) / name, threads=threads)
            plain = Scorer.load(workload.scoring, threads=threads)
            recommended = Scorer.load(workload.scoring, threads=threads, features=["recommended"])
            ways = {
                "without": lambda scorer=plain, batch=workload.batch: scorer.score(batch),
                "with": lambda scorer=recommended, batch=workload.batch: scorer.score(batch),
            }
            timings = interleaved(ways, repeats=repeats)
            best = {way: timings[way].best / len(workload.batch) * 1e6 for way in ways}
            columns = len(recommended.feature_names) - len(plain.feature_names)
            rows.append(
                f"| {workload.classifier.title} | {columns} | {best['without']:,.1f} | {best['with']:,.1f} "
                f"| {best['with'] / best['without']:.2f} |"
            )
            typer.echo(rows[-1], err=True)
    text = "\n".join([
        "# What the recommended features cost",
        "",
        f"`python -m tools.benchmark_recommended`: {threads} threads, fastest of {repeats} turns, both ways in turn; µs an input.",
        "",
        "| model | more columns | without | with | with ÷ without |",
        "|---|---:|---:|---:|---:|",
        *rows,
        "",
    ])  # fmt: skip
    typer.echo(text)
    RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
