"""What the command line prints: tables on stdout, progress and summaries on stderr."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from gradscore.batch import Summary
from gradscore.evaluation import Evaluation
from gradscore.verdict import Verdict

_PIPE_WIDTH = 1000  # a file or a pipe has no width to wrap at; a table takes no more than it needs
_PLAIN = {"highlight": False, "markup": False, "emoji": False}  # paths and names are printed as they are


def _stdout() -> Console:
    return Console(**_PLAIN, width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def _stderr() -> Console:
    return Console(**_PLAIN, stderr=True, soft_wrap=True)


class _Speed(ProgressColumn):
    """Inputs handled per second."""

    def render(self, task: Task) -> Text:
        """Show the speed of the run so far."""
        return Text(f"{task.finished_speed or task.speed or 0:,.0f} images/s")


@contextmanager
def progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar with images/s on stderr where that is a terminal; yields the function that advances it."""
    columns = (TextColumn("scoring"), BarColumn(), MofNCompleteColumn(), _Speed(), TimeRemainingColumn())
    with Progress(*columns, console=_stderr(), disable=not _stderr().is_terminal) as bar:
        task = bar.add_task("scoring", total=total)
        yield lambda done: bar.advance(task, done)


def show_summary(summary: Summary) -> None:
    """Print in two lines what a scoring run did."""
    console = _stderr()
    console.print(
        f"scored {summary.scored:,} inputs in {summary.seconds:.2f} s ({summary.images_per_second:,.0f} images/s), "
        f"{summary.failed:,} failed: {summary.output}"
    )
    if summary.not_finite:
        console.print(f"{summary.not_finite:,} rows hold NaN or Inf from the model's own arithmetic")
    if summary.first_error:
        console.print(f"first failure: {summary.first_error}")


def show_fit(verdict: Verdict, output: Path, left_out: int) -> None:
    """Print what a verdict was fitted to."""
    summary = verdict.summary
    console = _stderr()
    console.print(
        f"fitted {verdict.method} to {summary['rows']:,} rows ({summary['correct']:,} correct, "
        f"{summary['incorrect']:,} incorrect), accepts P(correct) ≥ {verdict.threshold:.4f}: {output}"
    )
    if left_out:
        console.print(f"{left_out:,} rows with an error were left out")
    for note in summary["notes"]:
        console.print(f"note: {note}")


def show_verdicts(counts: Mapping[str, int], output: Path) -> None:
    """Print how many rows were accepted and rejected."""
    _stderr().print(", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in counts.items()) + f": {output}")


def show_comparison(comparison: Mapping[str, Evaluation], convention: str) -> None:
    """Print one row a confidence, metrics in percent."""
    first = next(iter(comparison.values()))
    table = Table()
    table.add_column("confidence", overflow="fold")
    for heading in ("AUROC", "AUPR-In", "AUPR-Out", "FPR95"):
        table.add_column(heading, justify="right")
    for name, result in comparison.items():
        numbers = (result.auroc, result.aupr_in, result.aupr_out, result.fpr95)
        table.add_row(name, *(f"{100 * number:.2f}" for number in numbers))
    console = _stdout()
    console.print(table)
    console.print(
        f"{first.correct:,} correct, {first.incorrect:,} incorrect; percent; convention {convention}", soft_wrap=True
    )


def show_inspection(report: Mapping[str, Any]) -> None:
    """Print a scoring model's facts and its parameters."""
    console = _stdout()
    for key in ("fingerprint", "source_sha256", "engine", "preprocessing"):
        console.print(f"{key}: {report[key]}", soft_wrap=True)
    for item in report["inputs"]:
        extents = ", ".join(map(str, item["shape"]))
        console.print(f"input: {item['name']} {item['dtype']} [{extents}]", soft_wrap=True)
    console.print(f"classes: {', '.join(report['class_names'])}", soft_wrap=True)
    table = Table()
    for heading in ("layer", "op", "parameter", "shape"):
        table.add_column(heading, overflow="fold")
    table.add_column("count", justify="right")
    table.add_column("covered by", overflow="fold")
    for item in report["parameters"]:
        shape = "×".join(map(str, item["shape"]))
        table.add_row(item["layer"], item["op"], item["name"], shape, f"{item['count']:,}", item["coverage"])
    console.print(table)
    console.print(
        f"{report['weights']:,} weights, {report['covered_share']:.1%} covered; {report['features']} features",
        soft_wrap=True,
    )


def show_doctor(report: Mapping[str, Any]) -> None:
    """Print the state of the installation."""
    console, builder = _stdout(), report["builder"]
    facts = {
        "gradscore": report["gradscore"],
        "python": f"{report['python']} on {report['platform']}, {report['cores']} cores",
        "packages": ", ".join(f"{name} {number or '—'}" for name, number in report["packages"].items()),
        "runtime": ", ".join(f"{name} {number}" for name, number in report["runtimes"].items()) or "none",
        "providers": ", ".join(report["providers"]) or "none",
        "kernels": f"{report['default_backend']} (of {', '.join(report['backends'])}), SIMD {report['simd'] or '—'}",
        "builder": f"{builder['version']}, {'installed' if builder['installed'] else 'not installed'}, {builder['path']}",
    }
    for name, fact in facts.items():
        console.print(f"{name:<10} {fact}", soft_wrap=True)
    for kind in ("notes", "problems"):
        for line in report[kind]:
            console.print(f"{kind.removesuffix('s')}: {line}", soft_wrap=True)
