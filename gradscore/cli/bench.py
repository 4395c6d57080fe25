"""The commands `gradscore bench kernels` and `gradscore bench scoring`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradscore.cli.options import AsJson

if TYPE_CHECKING:
    from gradscore.bench.tables import Table

# Commands import what they need when they run, so that `--help` stays fast.
# ruff: noqa: PLC0415

bench_app = typer.Typer(help="Measure the speed of kernels and scoring on this machine.", no_args_is_help=True)


@bench_app.command("kernels")
def bench_kernels(
    case: Annotated[list[str] | None, typer.Option(help="Measure only this case. Repeatable.")] = None,
    backend: Annotated[list[str] | None, typer.Option(help="Measure only this back end. Repeatable.")] = None,
    repeats: Annotated[int, typer.Option(min=2, help="Repetitions of each measurement.")] = 15,
    as_json: AsJson = False,
) -> None:
    """Measure every kernel on one core, against the speed of memory and matrix products.

    Example: gradscore bench kernels --backend native
    """
    from gradscore.bench.kernels import measure_kernels
    from gradscore.bench.tables import kernel_table, machine, plain

    rows = measure_kernels(backends=backend, names=case, repeats=repeats)
    if as_json:
        _print_json({"machine": machine(1), "kernels": plain(rows)})
    else:
        _print_table(kernel_table(rows))


@bench_app.command("scoring")
def bench_scoring(
    model: Annotated[list[str] | None, typer.Option(help="Measure only this model. Repeatable.")] = None,
    way: Annotated[list[str] | None, typer.Option(help="Measure only this implementation. Repeatable.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads for every implementation. Default: all cores.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=2, help="Repetitions of each measurement.")] = 7,
    chart: Annotated[Path | None, typer.Option(help="Also write a chart to this file, .svg or .png.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the speed and memory of scoring, against other implementations of the same statistics. Takes minutes.

    Example: gradscore bench scoring --model paper-cnn --way gradscore --way "torch vmap"
    """
    from gradscore_kernels import usable_cores

    from gradscore.bench.chart import check_chart, save_chart
    from gradscore.bench.scoring import measure_scoring
    from gradscore.bench.tables import machine, plain, scoring_table

    if chart is not None:
        check_chart(chart)
    rows = measure_scoring(models=model, candidates=way, threads=threads, repeats=repeats)
    if chart is not None:
        save_chart(rows, chart)
    if as_json:
        _print_json({"machine": machine(threads or usable_cores()), "scoring": plain(rows)})
    else:
        _print_table(scoring_table(rows))


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


def _print_table(table: "Table") -> None:
    """Print a table. Into a pipe or a file, it is not wrapped."""
    from rich.console import Console
    from rich.table import Table as Grid

    headings, cells = table
    grid = Grid()
    for heading in headings:
        grid.add_column(heading, overflow="fold")
    for line in cells:
        grid.add_row(*line)
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 1000
    console.print(grid)
