"""The command `gradscore report`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradscore.cli.options import (
    AsJson,
    Convention,
    DrawSeed,
    Extra,
    Labels,
    Output,
    Overwrite,
    Transposed,
    Unknown,
    UnknownLabels,
    labelled_cases,
    print_json,
    read_extra,
    tell_unused,
)

if TYPE_CHECKING:
    from gradscore.inputs.sources import Source

# Commands import what they need when they run, so that `--help` stays fast.
# ruff: noqa: PLC0415


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(report)


def report(
    scores: Annotated[list[Path], typer.Argument(help="Score tables of labelled inputs.")],
    output: Output,
    unknown: Unknown = None,
    verdict: Annotated[
        list[Path] | None, typer.Option(help="A verdict. Repeatable: the first decides, the others are compared.")
    ] = None,
    labels: Labels = None,
    unknown_labels: UnknownLabels = "error",
    extra: Extra = None,
    images: Annotated[
        list[str] | None,
        typer.Option(help="The scored inputs, to show pictures: PATH, or NAME=PATH for --unknown. Repeatable."),
    ] = None,
    idx_transposed: Transposed = False,
    png: Annotated[Path | None, typer.Option(help="Folder to write each figure to as a PNG.")] = None,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "How far can these predictions be trusted?",
    convention: Convention = "hendrycks",
    bootstrap: Annotated[
        int, typer.Option(min=0, help="Bootstrap resamples for 95 % intervals. 0: no intervals.")
    ] = 1000,
    seed: DrawSeed = 0,
    as_json: AsJson = False,
    overwrite: Overwrite = False,
) -> None:
    """Write one HTML page with tables, figures and pictures.

    It loads nothing from other files or sites.

    Example: gradscore report test.parquet --unknown noise.parquet --verdict verdict.onnx -o report.html
    """
    from gradscore.comparing.comparison import load_verdicts
    from gradscore.files.writing import refuse_existing
    from gradscore.report import build, write_page, write_pngs
    from gradscore.tables.table import ScoreTable

    refuse_existing(output, overwrite=overwrite)
    table = ScoreTable.concatenate([ScoreTable.read(path) for path in scores])
    own = read_extra(extra)
    cases = labelled_cases(table, unknown, labels, unknown_labels, seed, extra=own)
    tell_unused(own)
    sources = _sources(images, cases.group_names, idx_transposed)
    content = build(
        cases, load_verdicts(verdict or []), columns=own.signs, convention=convention, resamples=bootstrap, seed=seed
    )
    write_page(content, output, sources=sources, title=title, overwrite=overwrite)
    typer.echo(f"wrote {output}", err=True)
    if png:
        typer.echo(f"wrote {len(write_pngs(content, png, overwrite=overwrite))} figures into {png}", err=True)
    if as_json:
        print_json(content.as_dict())


def _sources(texts: list[str] | None, groups: tuple[str, ...], idx_transposed: bool) -> "dict[str, Source]":
    """Open the sources given as PATH (known rows) or NAME=PATH (unknown table NAME)."""
    from gradscore.inputs.sources import open_source

    places: dict[str, list[str]] = {}
    for text in texts or []:
        name, _, path = text.partition("=")
        group, place = (name, path) if path and name in groups else (groups[0], text)
        places.setdefault(group, []).append(place)
    return {group: open_source(paths, idx_transposed=idx_transposed) for group, paths in places.items()}
