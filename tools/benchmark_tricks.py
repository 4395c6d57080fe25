"""What each speed trick gains: scoring with it and without it, in turn in one process, on the models where it can matter.

Usage: python -m tools.benchmark_tricks [--model NAME …] [--trick WORDS …] [--threads N] [--repeats N]. Writes
tools/results/tricks.md, unless models or tricks were chosen. Each figure is the fastest of many turns.
"""

import tempfile
from itertools import chain
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from gradscore_kernels import usable_cores

from gradscore.bench.timing import interleaved
from gradscore.bench.workloads import COMPARED, Workload, make_ready
from tools.tricks import TRICKS, Trick

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "tricks.md"


def _row(trick: Trick, workload: Workload, repeats: int) -> str:
    """Measure a trick on a model, after both ways have found the same."""
    ways = trick.ways(workload)
    np.testing.assert_allclose(ways.on(), ways.off(), rtol=0.02, atol=1e-3, err_msg=f"{trick.title}, {workload.name}")
    timings = interleaved({"on": ways.on, "off": ways.off}, repeats=repeats)
    on, off = (timings[way].best / ways.inputs * 1e6 for way in ("on", "off"))
    return f"| {trick.title} | {_code(trick)} | {workload.name} | {on:,.1f} | {off:,.1f} | {off / on:.2f} |"


def _code(trick: Trick) -> str:
    """Name a trick's files, and say how many lines they have."""
    lines = sum(len((ROOT / file).read_text(encoding="utf-8").splitlines()) for file in trick.files)
    return f"{', '.join(f'`{file}`' for file in trick.files)}: {lines}"


def main(
    model: Annotated[list[str] | None, typer.Option(help="These models alone.")] = None,
    trick: Annotated[list[str] | None, typer.Option(help="Those alone whose titles hold one of these words.")] = None,
    threads: int = usable_cores(),
    repeats: int = 15,
) -> None:
    """Measure, print and write the table."""
    rows: dict[str, list[str]] = {one.title: [] for one in TRICKS}
    with tempfile.TemporaryDirectory() as folder:
        for name in model or COMPARED:
            workload = make_ready(name, Path(folder) / name, threads=threads)
            for one in TRICKS:
                if name in one.models and any(words in one.title for words in trick or [""]):
                    rows[one.title].append(_row(one, workload, repeats))
                    typer.echo(rows[one.title][-1], err=True)
    text = "\n".join([
        "# Speed tricks, on and off",
        "",
        f"`python -m tools.benchmark_tricks`: {threads} threads, fastest of {repeats} turns, both ways in turn; µs an input.",
        "",
        "| trick | code: lines | model | on | off | off ÷ on |",
        "|---|---|---|---:|---:|---:|",
        *chain.from_iterable(rows.values()),
        "",
    ])  # fmt: skip
    typer.echo(text)
    if not model and not trick:
        RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
