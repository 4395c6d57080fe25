"""The commands `gradscore score` and `gradscore verify`."""

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradscore.cli.options import (
    AsJson,
    DetectorReferenceFile,
    ExtraFeatures,
    Overwrite,
    Transposed,
    all_parts,
    parts,
    print_json,
)
from gradscore.errors import GradscoreError, InputError

if TYPE_CHECKING:
    from gradscore.inputs.sources import Source
    from gradscore.runs.destination import Destination
    from gradscore.runs.scoring_run import Summary
    from gradscore.scoring.scorer import Scorer

# Commands import what they need when they run, so that `--help` stays fast.
# ruff: noqa: PLC0415

EXIT_SOME_FAILED = 3
AUTO = "auto"
STDOUT = Path("-")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (score, verify):
        app.command()(command)


def _batch_size(text: str) -> str:
    if text != AUTO and not (text.isdecimal() and int(text)):
        raise typer.BadParameter(f"{text!r} is neither a positive number nor {AUTO}")
    return text


def score(
    model: Annotated[Path, typer.Argument(help="A scoring model.")],
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Image folders (recursive), image files, globs, .zip and .tar archives, idx, .npy, .npz, .parquet and "
            ".arrow files, URLs (s3://…), @FILE with one image path per line, or - for such a list on stdin."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="A file (.parquet, .csv, .jsonl, .arrow), a new folder for Parquet shards, or - for Arrow on stdout.",
        ),
    ],
    features: ExtraFeatures = None,
    reference: DetectorReferenceFile = None,
    batch_size: Annotated[
        str, typer.Option(callback=_batch_size, help="Inputs in a batch, or auto for the fastest size.")
    ] = "256",
    shard_rows: Annotated[int, typer.Option(min=1, help="Rows in a shard. A finished shard survives a crash.")] = 2048,
    precision: Annotated[
        str, typer.Option(help="float64, or float32 for tables of half the size. In float32, norms below 1e-38 are 0.")
    ] = "float64",
    limit: Annotated[int | None, typer.Option(min=1, help="Score only this many inputs, the first ones.")] = None,
    idx_transposed: Transposed = False,
    providers: Annotated[str | None, typer.Option(help="onnxruntime providers, comma-separated. Default: CPU.")] = None,
    backend: Annotated[
        str, typer.Option(help="Back end of the statistics: auto, native, numba, reference or graph.")
    ] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads for decoding, session and kernels. Default: all cores.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a stopped run. If there is none, start one.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Load the model, list the inputs, read the first 16, and stop.")
    ] = False,
    as_json: AsJson = False,
    overwrite: Overwrite = False,
) -> None:
    """Score inputs into a table.

    Exit code 3: done, but some inputs could not be read. 130, 143: stopped by a signal.

    Example: gradscore score scoring.onnx images/ -o scores.parquet
    """
    from gradscore.inputs.sources import open_source
    from gradscore.runs.destination import Destination
    from gradscore.runs.stopping import stoppable
    from gradscore.scoring.scorer import Scorer

    streamed, destination = output == STDOUT, Destination(output)
    if streamed and (as_json or resume):
        raise InputError("-o - writes the table to stdout: --json and --resume need an output file")
    if not streamed:
        destination.refuse_taken(overwrite=overwrite, resume=resume)
    with stoppable(destination.kept):
        scorer = Scorer.load(
            model, providers=parts(providers), backend=backend, threads=threads, features=all_parts(features),
            reference=reference,
        )  # fmt: skip
        source = open_source(inputs, idx_transposed=idx_transposed).first(limit)
        if dry_run:
            _show_plan(scorer, source, as_json)
            return
        size = _resolved(batch_size, scorer, source, destination if resume else None)
        if not streamed:
            _conclude(_write(scorer, source, output, size, shard_rows, precision, overwrite, resume), as_json)
            return
        _conclude(_stream(scorer, source, size, precision), as_json)


def verify(
    output: Annotated[Path, typer.Argument(help="Output of `score`: a Parquet file or a folder of shards.")],
    inputs: Annotated[
        list[str] | None, typer.Argument(help="The inputs, to compare with. Default: the ids that the run recorded.")
    ] = None,
    idx_transposed: Transposed = False,
    as_json: AsJson = False,
) -> None:
    """Check that a score table is complete: every input once, in order, every shard unchanged.

    Example: gradscore verify scores.parquet images/
    """
    from gradscore.inputs.sources import open_source
    from gradscore.runs.verification import verify_output

    source = open_source(inputs, idx_transposed=idx_transposed) if inputs else None
    report = verify_output(output, source)
    if as_json:
        print_json(report.as_dict())
    for problem in report.problems:
        typer.echo(f"problem: {problem}", err=True)
    if report.problems:
        raise GradscoreError(
            f"{output} is not whole: {len(report.problems)} problem{'s' if len(report.problems) > 1 else ''}"
        )
    typer.echo(f"{output} is whole: {report.rows:,} rows, {report.failed:,} failed", err=True)


def _write(
    scorer: "Scorer", source: "Source", output: Path, size: int, shard_rows: int, precision: str, overwrite: bool,
    resume: bool,
) -> "Summary":  # fmt: skip
    from gradscore.cli import console
    from gradscore.runs.scoring_run import score_to_parquet

    with console.progress(len(source)) as advance:
        return score_to_parquet(
            scorer, source, output, batch_size=size, shard_rows=shard_rows, precision=precision,
            overwrite=overwrite, resume=resume, progress=advance,
        )  # fmt: skip


def _stream(scorer: "Scorer", source: "Source", size: int, precision: str) -> "Summary":
    from gradscore.runs.scoring_run import scored_tables
    from gradscore.tables.formats import ArrowStream

    tables = scored_tables(scorer, source, batch_size=size, precision=precision)
    with closing(ArrowStream().open(sys.stdout.buffer, tables.schema)) as writer:
        for table in tables:
            writer.write_table(table)
    sys.stdout.buffer.flush()
    return tables.summary("stdout")


def _conclude(summary: "Summary", as_json: bool) -> None:
    from gradscore.cli import console

    console.show_summary(summary)
    if as_json:
        print_json(summary.as_dict())
    if summary.failed:
        raise typer.Exit(EXIT_SOME_FAILED)


def _resolved(text: str, scorer: "Scorer", source: "Source", destination: "Destination | None") -> int:
    """Return the batch size. With `auto`, a resumed run keeps the size that its start found."""
    from gradscore.runs.scoring_run import fastest_batch_size

    if text != AUTO:
        return int(text)
    earlier = destination.earlier() if destination else None
    return int(earlier.identity["batch size"]) if earlier else fastest_batch_size(scorer, source)


def _show_plan(scorer: "Scorer", source: "Source", as_json: bool) -> None:
    """Read the first inputs, and print what a run would do."""
    tried = [(entry.id, scorer.read(entry)) for entry in source.entries[:16]]
    problems = [f"{name}: {found}" for name, found in tried if isinstance(found, str)]
    plan = {
        "inputs": len(source), "first": source.entries[0].id, "last": source.entries[len(source) - 1].id,
        "features": len(scorer.feature_names), "backend": scorer.backend, "providers": list(scorer.providers),
        "tried": len(tried), "unreadable": problems,
    }  # fmt: skip
    if as_json:
        print_json(plan)
    else:
        typer.echo(
            f"would score {len(source):,} inputs ({plan['first']} to {plan['last']}), {plan['features']} features each, "
            f"on {scorer.backend} kernels and {', '.join(scorer.providers)}; {len(problems)} of the first {len(tried)} "
            "cannot be read",
            err=True,
        )
        for problem in problems:
            typer.echo(f"unreadable: {problem}", err=True)
