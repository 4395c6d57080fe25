"""Options shared by several commands, and the parsing of their values."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradscore.errors import InputError

if TYPE_CHECKING:
    from gradscore.comparing.cases import Cases
    from gradscore.tables.extra_columns import ExtraColumns
    from gradscore.tables.table import ScoreTable

Output = Annotated[Path, typer.Option("--output", "-o", help="File to write.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
ClassNames = Annotated[str | None, typer.Option(help="Class names, comma-separated, or a file with one per line.")]
Labels = Annotated[
    Path | None,
    typer.Option("--labels", help="CSV with the true classes, columns id,label. Default: folder names."),
]
UnknownLabels = Annotated[
    str, typer.Option("--unknown-labels", help="What a label that is not a class means: error, or incorrect.")
]
Unknown = Annotated[
    list[str] | None,
    typer.Option("--unknown", help="Score table of inputs of no known class. PATH:N draws N of its rows. Repeatable."),
]
Extra = Annotated[
    list[str] | None,
    typer.Option(
        "--extra",
        help="Your own scores, joined by id: a Parquet or CSV file with the column id and numeric columns. PATH:A,-B joins "
        "A and B; in -B smaller means more confident. NAME=PATH is for table NAME alone: known, or a table of --unknown. "
        "Repeatable.",
    ),
]
Convention = Annotated[
    str, typer.Option(help="How AUPR and FPR95 are computed: hendrycks, openood, torch-uncertainty.")
]
DrawSeed = Annotated[int, typer.Option("--seed", help="Seed of the draw in PATH:N and of the bootstrap.")]


ExtraFeatures = Annotated[
    list[str] | None,
    typer.Option(
        "--features",
        help="Extra features: recommended (what verdicts are best with), or max_logit, energy, margin, gradnorm, "
        "activations, pooled, penultimate, logits. Comma-separated; repeatable.",
    ),
]

DetectorReferenceFile = Annotated[
    Path | None,
    typer.Option(
        "--reference",
        help="What detectors in --features (knn, vim, …) learned from known inputs: a file of `gradscore reference`.",
    ),
]

Transposed = Annotated[
    bool, typer.Option("--idx-transposed", help="Transpose the images of idx files: those of EMNIST need it.")
]


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout.

    It must not contain NaN or infinity, which JSON lacks.
    """
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


def parts(text: str | None) -> list[str] | None:
    """Split a comma-separated list."""
    return [part.strip() for part in text.split(",")] if text else None


def all_parts(texts: list[str] | None) -> list[str]:
    """Split comma-separated lists into one list."""
    return [part for text in texts or [] for part in parts(text) or []]


def read_extra(texts: list[str] | None) -> "ExtraColumns":
    """Read the files of --extra."""
    from gradscore.tables.extra_columns import ExtraColumns  # noqa: PLC0415 - `--help` stays fast

    return ExtraColumns.read(texts or [])


def tell_unused(extra: "ExtraColumns") -> None:
    """Say on stderr how many ids of --extra no table had."""
    for line in extra.unused():
        typer.echo(line, err=True)


def labelled_cases(
    known: "ScoreTable",
    unknown: list[str] | None,
    labels: Path | None,
    unknown_labels: str,
    seed: int,
    made: "Mapping[str, ScoreTable] | None" = None,
    extra: "ExtraColumns | None" = None,
) -> "Cases":
    """Join a labelled table with tables of unknown inputs.

    These are the tables in `made`, and those read from PATH or PATH:N. All get the columns in `extra`.
    """
    from gradscore.comparing.cases import KNOWN, collect, read_unknown  # noqa: PLC0415 - `--help` stays fast

    if unknown_labels not in ("error", "incorrect"):
        raise InputError(f"--unknown-labels is {unknown_labels!r}: it takes error or incorrect")
    tables = {**(made or {}), **read_unknown(unknown or [], seed=seed)}
    if extra:
        extra.require_tables([KNOWN, *tables])
        known = extra.join(known, KNOWN)
        tables = {name: extra.join(table, name) for name, table in tables.items()}
    return collect(known, tables, label_file=labels, unknown_labels=unknown_labels)  # type: ignore[arg-type]  # checked above
